"""What the losses from several starts say about a state: whether it works on this base, and which way round it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from rwkvlab.measure.verifying.effects import STORED, ZERO, mean_se

TURNED, RANDOM = "transposed", "random {}"
MIN_TEXTS = 8  # the standard error of fewer means little
SURE = 3.0  # standard errors
ALIKE = 0.05  # texts whose gains spread less than this share of their mean count as one: they are nearly copies
T99 = (31.82, 6.96, 4.54, 3.75, 3.36, 3.14, 3.0, 2.9, 2.82)  # quantiles of Student's t for 1, 2 … 9 degrees of freedom
LARGE = 20.0  # times the norm of normal running

Orientation = Literal["as stored", "transposed", "undecided"]


class Finding(NamedTuple):
    """A sentence, whether it does not speak for the files, and if so, whether it only leaves open if they are good."""

    text: str
    problem: bool = False
    open: bool = False


class Gains:
    """How much lower the loss is from each start than from zero, in nats a token, text by text."""

    def __init__(self, rows: pd.DataFrame) -> None:
        """Take the rows of `effects`."""
        losses = rows.pivot_table(index="text", columns="start", values="loss", sort=False)
        self.by_start = {str(start): (losses[ZERO] - losses[start]).to_numpy() for start in losses.columns}
        self.randoms = [start for start in self.by_start if start not in (ZERO, STORED, TURNED)]
        self.texts = len(losses)
        means = [self.mean(start) for start in self.randoms]
        self.low, self.high = min(means), max(means)
        kl = rows.groupby("start")["kl"].mean()
        self.kl = {str(start): float(value) for start, value in kl.items()}

    def sure(self, a: str, b: str) -> bool:
        """Whether the loss from `a` is lower than from `b` by more than three standard errors of the difference."""
        mean, se = mean_se(self.by_start[a] - self.by_start[b])
        return self.texts >= MIN_TEXTS and mean > SURE * se

    def beyond_chance(self, start: str) -> bool:
        """Whether `start` surely helps, and more than another random state would in 99 of 100 cases: see `missed`."""
        return not self.missed(start)

    def missed(self, start: str) -> str:
        """Return which bar `start` misses, and what may help; "" where it surely helps beyond chance.

        Chance is the upper end of the 98 % prediction interval of the random states (Student's t) on a scale that is
        linear up to the gain of `start` and logarithmic beyond, since random states can hurt without bound. Where their
        gains are not normal, up to 4 in 100 would pass this, but not the paired tests besides.
        """
        gain, count, gains = self.mean(start), len(self.randoms), self.by_start[start]
        if self.texts < MIN_TEXTS:
            return f"give at least {MIN_TEXTS} texts that differ, there are {self.texts}"
        if gain <= max(self.high, 0):
            return "it helps no more than random states do: give texts= like those it was tuned on"
        if gains.std() < ALIKE * gain:
            return "all texts gain nearly the same, as copies do: give texts= that differ more"
        means = np.arcsinh(np.array([self.mean(other) for other in self.randoms]) / gain)
        quantile = T99[min(count - 1, len(T99)) - 1]
        limit = np.sinh(min(means.mean() + quantile * means.std(ddof=1) * (1 + 1 / count) ** 0.5, 99.0))
        if limit >= 1:
            far = f"{gain * limit:.3f}" if limit < 10 else "more than ten times that"
            told = f"as far as {count} random states tell: more seeds= would tell more"
            return f"it helps by {gain:.3f} where chance may reach {far}, {told}"
        unsure = [other for other in (ZERO, *self.randoms) if not self.sure(start, other)]
        if not unsure:
            return ""
        than = "no state" if unsure[0] == ZERO else f"the state {unsure[0]!r}"
        return f"it is better than {than} {self.short(start, unsure[0])}: more texts would tell"

    def short(self, a: str, b: str) -> str:
        """Return by how much `a` is better than `b`, and that this is too little to be sure."""
        return f"by {amount(self.by_start[a] - self.by_start[b])}, more than {SURE:g} standard errors are needed"

    def mean(self, start: str) -> float:
        """Return the mean gain of a start over the texts."""
        return float(self.by_start[start].mean())


def amount(values: np.ndarray) -> str:
    """Return the size of a mean over texts with its standard error."""
    mean, se = mean_se(values)
    if len(values) < 2:
        return f"{abs(mean):.3f} nats a token (one text: no standard error)"
    return f"{abs(mean):.3f} ± {se:.3f} nats a token"


def effect(gains: Gains, way: Orientation, base: bool = False) -> Finding:
    """Say whether the state does more on this base than random states with its singular values do.

    base: whether it is known already that the state was made on it.
    """
    mean, number = gains.mean(STORED), amount(gains.by_start[STORED])
    kls = [gains.kl[start] for start in gains.randoms]
    kl = gains.kl[STORED]
    if kl == 0 and not gains.by_start[STORED].any():
        return Finding("effect: the state changes nothing: is it all zeros?", True)
    than = "more than any of them" if kl > max(kls) else "no more than a random state does"
    beside = (
        f"random states with its singular values change the loss by {-gains.high:+.3f} to {-gains.low:+.3f}; it moves"
        f" the next token's distribution by {kl:.3g} nats (KL; random ones by {min(kls):.3g} to {max(kls):.3g}), {than}"
    )
    missed = gains.missed(STORED)
    if not missed:
        return Finding(f"effect: the state helps by {number}; {beside}")
    if gains.texts < MIN_TEXTS or (mean > max(gains.high, 0) and way != "transposed"):
        does = "helps" if mean > 0 else "hurts"
        return Finding(f"effect: not sure: the state {does} by {number}, but {missed}; {beside}", True, True)
    causes = "Texts unlike those it was tuned on, or the wrong way round?"
    causes = causes if base else "The wrong base model, the wrong way round, or texts unlike those it was tuned on?"
    causes = "It is the other way round." if way == "transposed" else causes
    if gains.sure(ZERO, STORED):
        return Finding(f"effect: the state hurts by {number}; {beside}. {causes}", True)
    worse = "lower" if mean > 0 else "higher"
    return Finding(f"effect: none beyond chance, the loss is {worse} by {number}; {beside}. {causes}", True, True)


def way_round(gains: Gains, other_way: str) -> tuple[Orientation, Finding]:
    """Tell which way round the state is; other_way says how to load it transposed.

    Decided only where one way beats the other by more than three standard errors, and helps beyond chance.
    """
    if TURNED not in gains.by_start:
        return "undecided", Finding("orientation: heads are not square, so that only one way round fits")
    apart = gains.by_start[STORED] - gains.by_start[TURNED]
    if not apart.any():
        return "undecided", Finding("orientation: cannot tell, both ways round do the same")
    better, worse = (STORED, TURNED) if apart.mean() > 0 else (TURNED, STORED)
    missed = gains.missed(better)
    if not missed and not gains.sure(better, worse):
        missed = f"more than {SURE:g} standard errors are needed: more texts would tell"
    if missed:
        which = f"the loss is lower {'as it is' if better == STORED else 'transposed'}, by {amount(apart)}"
        return "undecided", Finding(f"orientation: cannot tell from these texts: {which}, but {missed}")
    if better == STORED:
        return "as stored", Finding(f"orientation: right as it is: transposed it would be worse by {amount(apart)}")
    return "transposed", Finding(
        f"orientation: it is the other way round, worse by {amount(apart)} as it is: {other_way}", True
    )


def size(state_norms: Sequence[float], normal: np.ndarray) -> Finding:
    """Say how large the state of each layer is against the one after reading the texts from zeros."""
    ratios = np.asarray(state_norms) / np.maximum(normal, 1e-12)
    layer = int(ratios.argmax())
    text = f"size: at most {ratios[layer]:.3g} times the norm that a state has after these texts (layer {layer})"
    if ratios[layer] <= LARGE:
        return Finding(text)
    return Finding(f"{text}: far above normal running; tuned with too high a rate, or for another base?")
