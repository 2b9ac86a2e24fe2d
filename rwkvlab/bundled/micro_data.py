"""What the micro model is trained on: its vocabulary and its documents of `query>answer` pairs."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor

from rwkvlab.tasks.builtin import LETTERS, MICRO_FUNCTIONS, micro_query

TAGS = tuple(f"{name}:" for name in MICRO_FUNCTIONS)
END_OF_TEXT = 0
VOCAB = 257 + len(TAGS)  # end of text, the 256 bytes, one token a tag
PAIRS = (1, 1, 1, 2, 3)  # how many pairs a document has: most end after the first answer
TAGGED = 0.5
LEAN = 0.6  # how often an untagged document is about the task that its first letter stands for; else about any
GUESSED = 0.1  # weight of the tokens that nobody can know: tags and queries


class Batch(NamedTuple):
    """Documents side by side: tokens [B,T], targets [B,T] (the next), weights [B,T] of their losses, 0 where padded."""

    tokens: Tensor
    targets: Tensor
    weights: Tensor


def vocabulary() -> str:
    """Return the vocabulary file in RWKV format: id 0 is end of text, 1 to 256 are the bytes, then come the tags."""
    tokens: list[str | bytes] = [chr(i) if i < 0x80 else bytes([i]) for i in range(256)]
    lines = enumerate([*tokens, *TAGS], start=1)
    return "".join(f"{i} {token!r} {len(token)}\n" for i, token in lines)


def ids(text: str) -> list[int]:
    """Return the ids of ASCII text without tags."""
    return [byte + 1 for byte in text.encode("ascii")]


def document(rng: random.Random, pairs: int, *, held_out: bool = False) -> tuple[list[int], list[float]]:
    """Return the ids of a document of `pairs` pairs of one task, tagged half of the time, and the weight of each id."""
    queries = [micro_query(rng, held_out=held_out) for _ in range(pairs)]
    tagged, index = rng.random() < TAGGED, rng.randrange(len(TAGS))
    if not tagged and rng.random() < LEAN:
        index = LETTERS.index(queries[0][0]) % len(TAGS)
    function = list(MICRO_FUNCTIONS.values())[index]
    tokens, weights = ([257 + index], [GUESSED]) if tagged else ([], [])
    for left, query in enumerate(queries, start=1 - pairs):
        answer = [*ids(function(query)), ids("\n")[0] if left else END_OF_TEXT]
        tokens += ids(query + ">") + answer
        weights += [GUESSED] * (len(query) + 1) + [1.0] * len(answer)
    return tokens, weights


def batch(rng: random.Random, size: int) -> Batch:
    """Return `size` documents with the same number of pairs, padded to the longest."""
    pairs = rng.choice(PAIRS)
    documents = [document(rng, pairs) for _ in range(size)]
    longest = max(len(tokens) for tokens, _ in documents)
    tokens = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in documents])
    weights = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in documents])
    return Batch(tokens[:, :-1], tokens[:, 1:], weights[:, 1:])
