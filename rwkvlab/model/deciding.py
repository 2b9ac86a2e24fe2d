"""From logits to the tokens that are taken, and what the model itself gave them; a GPU is not waited for needlessly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rwkvlab.errors import ArgError
from rwkvlab.model.sampling import NOTHING_LEFT, Sampling, adjusted, check_logits, choose, penalised


def next_tokens(
    logits: Tensor,
    counts: Sequence[dict[int, int]],
    sampling: Sampling,
    holes: Sequence[int],
    generators: Sequence[torch.Generator],
    step: int,
) -> tuple[list[int], list[float]]:
    """Return the next token of each row of logits [B,vocab], and its log-probability under the model itself.

    It is what `adjusted` and `choose` give; greedily on a GPU that is waited for once, not after every part.
    """
    if logits.is_cuda and sampling.temperature == 0:
        return greedily(logits, counts, sampling, holes, step)
    tokens = choose(adjusted(logits, counts, sampling, holes, step), sampling, generators)
    own = logits[range(len(tokens)), tokens] - logits.logsumexp(dim=-1)
    return tokens, own.tolist()


def greedily(
    logits: Tensor, counts: Sequence[dict[int, int]], sampling: Sampling, holes: Sequence[int], step: int
) -> tuple[list[int], list[float]]:
    """`next_tokens` at temperature 0; every check comes after the one wait."""
    total = logits.logsumexp(dim=-1)
    scores = penalised(logits, counts, sampling, holes)
    ids = scores.argmax(dim=-1, keepdim=True)
    best, own = scores.gather(-1, ids)[:, 0], logits.gather(-1, ids)[:, 0] - total
    facts = (total.isfinite(), best > -math.inf, ids[:, 0], own)
    sound, left, found, given = torch.stack([one.double() for one in facts]).tolist()
    if not all(sound):
        check_logits(logits, step)
    if not all(left):
        raise ArgError(NOTHING_LEFT)
    return [int(token) for token in found], given
