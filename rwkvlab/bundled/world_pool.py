"""StyleWorld as token ids: every question and answer that is not held out, in one array to gather documents from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rwkvlab.tasks.cities import CITIES
from rwkvlab.tasks.styleworld import (
    LANGUAGES,
    PHRASINGS,
    STYLE_NAMES,
    Combination,
    answer,
    combinations,
    question,
    style_tag,
    turn,
)

MARKS = ("?", "？", "")
MARKED = {"en": (0.9, 0.0, 0.1), "zh": (0.6, 0.3, 0.1)}  # how often a question ends with each mark
_SLOT = "\x00"


class WorldPool(NamedTuple):
    """Pieces of documents, laid one after the other in `ids`: piece p is ids[start[p] : start[p] + size[p]].

    Pieces are numbered: tags by style; then the marks behind a question; what stands between a question and its
    answer; the end of text; an empty piece; then questions by (combination, language, phrasing), without their mark,
    from `questions` on; then answers by (combination, language, style), from `answers` on. `city` is the index of
    each combination's first city.
    """

    ids: NDArray[np.uint16]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    city: NDArray[np.int64]

    @property
    def marks(self) -> int:
        """The piece of the first mark."""
        return len(STYLE_NAMES)

    @property
    def between(self) -> int:
        """The piece behind a question: the end of the prompt."""
        return self.marks + len(MARKS)

    @property
    def end(self) -> int:
        """The piece that is the end of text; the one behind it is empty."""
        return self.between + 1

    @property
    def questions(self) -> int:
        """The first question."""
        return self.end + 2

    @property
    def answers(self) -> int:
        """The first answer."""
        return self.questions + len(self.city) * len(LANGUAGES) * PHRASINGS


def fill_pool(encode: Callable[[str], list[int]], rows: Iterable[Combination] | None = None) -> WorldPool:
    """Return the pool of some combinations, of all that are not held out where None, in the tokens of `encode`.

    A question is `User: …` up to its mark, an answer ` …` and a blank line, as `turn` writes them.
    """
    rows = combinations(held_out=False) if rows is None else list(rows)
    head, between = turn(_SLOT).split(_SLOT)
    pieces = [encode(style_tag(style)) for style in STYLE_NAMES]
    pieces += [encode(mark) for mark in MARKS] + [encode(between), [0], []]
    for c in rows:
        for language in LANGUAGES:
            asked = (question(c, language, phrasing) for phrasing in range(PHRASINGS))
            pieces += [encode(head + text.rstrip("?")) for text in asked]
    for c in rows:
        for language in LANGUAGES:
            said = (turn(_SLOT, answer(c, style, language)) for style in STYLE_NAMES)
            pieces += [encode(text.partition(_SLOT + between)[2]) for text in said]
    size = np.array([len(piece) for piece in pieces], np.int64)
    ids = np.fromiter((index for piece in pieces for index in piece), np.uint16, int(size.sum()))
    keys = list(CITIES)
    return WorldPool(ids, np.cumsum(size) - size, size, np.array([keys.index(c.a) for c in rows], np.int64))
