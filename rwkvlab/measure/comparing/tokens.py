"""What was written, token by token: where it differs from the baseline's, and how far two starts disagree along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import pandas as pd
from tqdm.auto import tqdm

from rwkvlab.errors import NonFiniteError, show
from rwkvlab.measure.along import along
from rwkvlab.model.vocab import Tokenizer
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 32  # starts that read one text together, fewer where states are large
BYTES = 2**30  # of states in one batch
ALIGNED = 1000  # tokens after the first difference that are aligned; what comes later counts as different
KEYS = ["prompt", "state", "sample"]
WRITTEN = (*KEYS, "token", "id", "piece", "same")
TOKENS = (*KEYS, "along", "token", "id", "piece", "kl", "surprise", "surprise_baseline", "same")

Ids = tuple[int, ...]
Tick = Callable[[float, float], object]


@dataclass(frozen=True, eq=False)
class Answers:
    """The tokens that each arm wrote after each prompt; the first arm is the baseline.

    ids: by (prompt, arm, sample). Where the writing was interrupted, the last ones are missing.
    """

    model: Model
    form: Template
    arms: Mapping[str, State | None]
    ids: Mapping[tuple[str, str, int], Ids]

    def written(self) -> pd.DataFrame:
        """Return one row a token, without reading anything again: the columns of WRITTEN.

        piece is the text that the token settles: where tokens cut a character, it stands at the last of them and the
        others have none, so that the pieces of an answer join to its text. same: whether the baseline's answer has the
        same token at the aligned place.
        """
        rows = []
        for (prompt, arm, sample), ids in self.ids.items():
            texts, same = settle(self.model.tokenizer, ids), aligned(ids, self._base(prompt, sample))
            rows += [(prompt, arm, sample, at, *one) for at, one in enumerate(zip(ids, texts, same, strict=True))]
        return pd.DataFrame(rows, columns=list(WRITTEN))

    def read(self, tick: Tick | None = None) -> pd.DataFrame:
        """Read every answer again, teacher-forced, from the start that wrote it and from the baseline.

        Also reads the baseline's answers from every start. Returns the columns of TOKENS; see `Comparison.tokens`.
        tick(done, total) is called after every piece, in place of bars; what it raises ends the reading.
        """
        pairs = list(dict.fromkeys((prompt, sample) for prompt, _, sample in self.ids))
        wanted = [(prompt, sample, text) for prompt, sample in pairs for text in self._readers(prompt, sample)]
        judged: dict[tuple[str, int, Ids], dict[str, tuple[list[float], list[float]]]] = {}
        bar = tqdm(wanted, desc="reading the answers", delay=2, leave=False, disable=tick is not None)
        for at, (prompt, sample, text) in enumerate(bar):
            part = None if tick is None else _part(tick, at, len(wanted))
            judged[prompt, sample, text] = self._judge(prompt, text, self._readers(prompt, sample)[text], part)
        rows = []
        for (prompt, arm, sample), own in self.ids.items():
            base = self._base(prompt, sample)
            for name, text, other in (("own", own, base), ("baseline", base, own)):
                if not text:
                    continue
                found = judged[prompt, sample, text]
                (surprise, kl), (from_base, _) = found[arm], found[self.baseline]
                columns = (text, settle(self.model.tokenizer, text), kl, surprise, from_base, aligned(text, other))
                rows += [(prompt, arm, sample, name, at, *one) for at, one in enumerate(zip(*columns, strict=True))]
        return pd.DataFrame(rows, columns=list(TOKENS))

    @property
    def baseline(self) -> str:
        """The arm that the others are set against."""
        return next(iter(self.arms))

    def _base(self, prompt: str, sample: int) -> Ids:
        return self.ids.get((prompt, self.baseline, sample), ())

    def _readers(self, prompt: str, sample: int) -> dict[Ids, list[str]]:
        """Return each text that is read after a prompt, once, and the arms but the baseline that read it."""
        base = self._base(prompt, sample)
        own = {arm: self.ids[prompt, arm, sample] for arm in self.arms if (prompt, arm, sample) in self.ids}
        readers: dict[Ids, list[str]] = {base: [arm for arm in own if arm != self.baseline]}
        for arm, text in own.items():
            if text != base:
                readers.setdefault(text, []).append(arm)
        return {text: arms for text, arms in readers.items() if text}

    def _judge(
        self, prompt: str, text: Ids, arms: Sequence[str], tick: Tick | None
    ) -> dict[str, tuple[list[float], list[float]]]:
        """Return surprise and KL(arm ‖ baseline) of each token of a text, from each of the arms and the baseline."""
        ids, dims = self.model.encode(self.form.format(prompt)), self.model.dims
        size = max(1, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)) - 1)
        found: dict[str, tuple[list[float], list[float]]] = {}
        for at in range(0, max(1, len(arms)), size):
            some = [self.baseline, *arms[at : at + size]]
            try:
                starts = [self.arms[arm] for arm in some]
                read = along(self.model, ids, text, starts, what="reading an answer", tick=tick)
            except NonFiniteError as error:
                raise NonFiniteError(f"{show(prompt)}, from {', '.join(map(show, some))}: {error}") from error
            found |= dict(zip(some, zip(read.surprise.tolist(), read.kl.tolist(), strict=True), strict=True))
        return found


def _part(tick: Tick, at: int, total: int) -> Tick:
    """Return what tells of part `at` of `total` parts of a work."""
    return lambda done, of: tick(at + done / of, total)


def settle(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return for each token the text that it settles; joined they are `decode` of all."""
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in ids]
    if pieces:
        pieces[-1] += decoder.flush()
    return pieces


def aligned(ids: Sequence[int], other: Sequence[int]) -> list[bool]:
    """Return for each token of one text whether the other has it at the aligned place.

    What both begin with is the same; up to ALIGNED tokens after that are aligned by `difflib`.
    """
    start = next((at for at, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), min(len(ids), len(other)))
    same = [at < start for at in range(len(ids))]
    one, two = other[start : start + ALIGNED], ids[start : start + ALIGNED]
    for block in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks():
        same[start + block.b : start + block.b + block.size] = [True] * block.size
    return same
