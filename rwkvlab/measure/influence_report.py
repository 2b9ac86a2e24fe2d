"""The report of `influence`: when a mounted state is gone, in one sentence, and the tables behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.shapes import check_range
from rwkvlab.states.render import NO_FORMULAS, escape

STATE, RANDOM = "state", "random, same spectrum"
WINDOW, LEAST = 32, 8  # tokens of a stretch whose mean KL is looked at: usually, and in a short text
NOTHING = 1e-9  # nats a token: a mean KL below is rounding
GONE = 0.05  # share of the KL of the first stretch below which the effect counts as gone


@dataclass(frozen=True, eq=False)
class Influence:
    """How long a mounted state lasts along one text; printed, the answer to "when is it gone?".

    direct: one row a (token, layer, head): token (how many were read), norm (Frobenius, of what is left of the mounted
    matrix, state units), share (of its norm at token 0; nan where that is 0) and readout (what the tokens since the row
    before read out of it, as share of all they read out of that head: both are root mean squares of |S r|; above 1
    where the two parts cancel, nan at token 0). The inputs of all layers are held fixed: those of the run from the
    state.
    half_life: layer, head, half_life (tokens, in steps of `every`: the first from which on less than half of the norm
    is left; inf if that is not reached in the text, nan where the mounted head is zero).
    total: one row a (start, token): token (how many were read before the one that is judged), piece (that one), start
    ("state", or "random, same spectrum", a mean over random states), kl (nats, of the start's distribution of this
    token to the zero start's: KL(start ‖ zero)), surprise (nats, -log p of the piece from that start) and surprise_zero
    (from zeros). state is the name of the one that was mounted ("": it has none), tokens the length of the text.
    """

    direct: pd.DataFrame
    half_life: pd.DataFrame
    total: pd.DataFrame
    state: str
    tokens: int
    every: int

    @property
    def window(self) -> int:
        """The length of a stretch in tokens: 32, in texts of less than 129 tokens a quarter of them, 8 at least."""
        return max(LEAST, min(WINDOW, (self.tokens - 1) // 4))

    @property
    def short(self) -> bool:
        """Whether the text has no two stretches, so that nothing can be said of the total effect."""
        return self.tokens - 1 < 2 * self.window

    @property
    def gone(self) -> int | None:
        """The total effect is gone after so many tokens: every later stretch has a mean KL below 5 % of the first.

        A mean over `window` tokens, since the KL is often near zero at most tokens and large at a few. None where that
        is not so within this text, or the text is too short; 0 where the KL is zero, up to rounding, all along.
        """
        return self.gone_from(STATE)

    def gone_from(self, start: str = STATE, share: float = GONE) -> int | None:
        """Return the same for "state" or "random, same spectrum", and for another share of the first: 0.5 is its half.

        Raises ArgError for another start, or a share that is not in (0, 1).
        """
        check_range("share", share, 1e-9, 1 - 1e-9)
        means = self._stretches(start)
        most = np.maximum.accumulate(means[::-1])[::-1]  # the largest of this stretch and all later ones
        if self.short or most[0] < NOTHING:
            return None if self.short else 0
        quiet = np.flatnonzero(most < max(share * means[0], NOTHING))
        return int(quiet[0]) + 1 if len(quiet) else None

    def _stretches(self, start: str) -> np.ndarray:
        """Return the mean KL of each stretch of `window` tokens, one begun at each token."""
        kl = self.total.loc[self.total["start"] == start, "kl"].to_numpy()
        if not len(kl):
            raise ArgError(f"start: need {STATE!r} or {RANDOM!r}, got {show(start)}")
        width = min(self.window, len(kl))
        return np.convolve(kl, np.full(width, 1 / width), mode="valid")

    def _lines(self) -> list[str]:
        """Return the answer, and what it rests on."""
        name = show(self.state) if self.state else "The mounted state"
        gone, within = self.gone, f"within this text of {self.tokens} tokens"
        rule = f"mean KL to the zero start below {GONE:.0%} of that over the first {self.window}"
        if self.short:
            answer = f"Whether {name} is gone cannot be said {within}: give {2 * LEAST + 1} or more."
        elif gone is None:
            answer = f"{name} is not gone {within}: not every later stretch of {self.window} has a {rule}."
        elif gone == 0:
            answer = f"{name} does not change what the model expects {within}."
        else:
            answer = f"{name} is gone after {gone} tokens: from there on every {self.window} tokens have a {rule}."
        return [answer, self._direct_line(), *self._total_lines()]

    def _direct_line(self) -> str:
        known = self.half_life.dropna()
        if not len(known):
            return "direct, inputs frozen: the mounted matrices are all zero"
        lives = known["half_life"]
        middle = f"for {lives.median():g} tokens" if np.isfinite(lives.median()) else "to the end of the text"
        longest = known.iloc[int(lives.argmax())]
        where = f"layer {longest['layer']:g} head {longest['head']:g}"
        stay = int(np.isinf(lives).sum())
        more = f"{stay} to the end, {where} among them" if stay else f"longest {lives.max():g}, {where}"
        of = f"median of {len(known)} heads; {more}; in steps of {self.every}"
        return f"direct, inputs frozen: a head keeps half of its norm {middle} ({of})"

    def _total_lines(self) -> list[str]:
        lines = []
        for start, what in ((STATE, "total, KL to the zero start"), (RANDOM, "control, random states, same spectrum")):
            means, gone = self._stretches(start), self.gone_from(start)
            level = f"{means[0]:.3g} nats a token over the first {self.window}, {means[-1]:.3g} over the last"
            until = f"gone after {gone}" if gone is not None else "too short to say" if self.short else "not gone"
            half = self.gone_from(start, 0.5)
            lines.append(f"{what}: {level}; {f'below half of it after {half}, ' if half else ''}{until}")
        return lines

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        answer, *rest = (escape(line, 400) for line in self._lines())
        items = "".join(f"<li>{line}</li>" for line in rest)
        return f'<div class="{NO_FORMULAS}"><b>{answer}</b><ul>{items}</ul></div>'
