"""The six functions of a short string that the bundled micro model knows, as tasks with held-out queries."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from rwkvlab.shapes import check_range
from rwkvlab.tasks.task import Task

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CIPHER = "jfwihyotzsnxpqagvldrcbumek"  # the letter for a, b, c …; never the letter itself or the next one
LENGTHS = (4, 5, 6)
HELD_OUT = 8  # one query in eight, by its checksum, is kept out of all training and tuning

_NEXT = str.maketrans(LETTERS, LETTERS[1:] + LETTERS[0])
_CIPHER = str.maketrans(LETTERS, CIPHER)

# ambiguous on purpose: nothing in a query tells which of the six is wanted
MICRO_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "copy": lambda query: query,
    "reverse": lambda query: query[::-1],
    "sort": lambda query: "".join(sorted(query)),
    "next": lambda query: query.translate(_NEXT),
    "cipher": lambda query: query.translate(_CIPHER),
    "rotate": lambda query: query[1:] + query[0],
}


def micro_query(rng: random.Random, *, held_out: bool) -> str:
    """Return a random query of four to six letters for which the six functions give six different answers."""
    while True:
        query = "".join(rng.choices(LETTERS, k=rng.choice(LENGTHS)))
        if held_out != (zlib.crc32(query.encode()) % HELD_OUT == 0):
            continue
        if len({function(query) for function in MICRO_FUNCTIONS.values()}) == len(MICRO_FUNCTIONS):
            return query


def micro_tasks(n: int = 50, seed: int = 0, *, tagged: bool = False, held_out: bool = True) -> list[Task]:
    """Return the tasks copy, reverse, sort, next, cipher and rotate, each with the same `n` different queries.

    A prompt is `query>`, or `sort:query>` where `tagged`; the answer is what should follow, up to the end of text.
    held_out takes queries that neither the model nor its states were trained on. Raises ArgError for n outside
    1 … 10000 or a seed that is not a whole number.
    """
    check_range("n", n, 1, 10_000, whole=True)
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    rng, queries = random.Random(seed), dict[str, None]()
    while len(queries) < n:
        queries[micro_query(rng, held_out=held_out)] = None
    return [
        Task(
            name=name,
            prompts=tuple(f"{name}:{query}>" if tagged else f"{query}>" for query in queries),
            answers=tuple(map(function, queries)),
        )
        for name, function in MICRO_FUNCTIONS.items()
    ]
