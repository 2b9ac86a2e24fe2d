"""Weights by decay inside a chunk: what each token still reads of the tokens and of the state before it."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Keys grow by up to e^30 and masked pairs by e^60, inside float32 with room for the inputs; RWKV-7 needs e^5.
LARGEST_EXPONENT = 30.0


@dataclass(frozen=True)
class Weighed:
    """One chunk of Q tokens a row, M rows; nq queries and nk keys a token, stacked as [nq,Q] and [nk,Q]."""

    queries: Tensor  # [M,nq*Q,K] decayed from the start of the chunk: what they read of the state before it
    keys: Tensor  # [M,nk*Q,K] decayed to the end of the chunk: what they leave in the state after it
    pairs: Tensor  # [M,nq*Q,nk*Q] query . key of the same chunk, decayed in between; zero where the key comes later
    decay: Tensor  # [M,1,K] of the whole chunk


def weigh(w: Tensor, early: list[Tensor], late: list[Tensor], keys: list[Tensor]) -> Weighed:
    """Decay queries and keys [M,Q,K] by the log decays `w` [M,Q,K] (<= 0, -inf included), Q a power of two.

    A key joins the state after its token's decay. `early` queries read the state before their own token, `late` ones
    after it (and so their own key). The decay between two tokens is split in two factors about the middle of the chunk
    where both fit the float range, which turns the pairs into one matrix product; else neighbouring blocks are paired
    about the border between them, so that no factor exceeds one.
    """
    steps = _about_the_middle(w)
    # w <= 0: the largest of either sign is at an end. A comparison with NaN, which -inf makes here, is false.
    ends = steps.detach()[:, :: max(w.shape[1], 1)].abs()  # [M,2,K]
    if ends.numel() == 0 or bool(ends.amax() <= LARGEST_EXPONENT):
        return _weigh_in_two_factors(steps, early, late, keys)
    return _weigh_by_halves(w, early, late, keys)


def _about_the_middle(w: Tensor) -> Tensor:
    """Log decay from the middle of the chunk to each of its Q+1 boundaries [M,Q+1,K]; positive before it."""
    size = w.shape[1]
    sums = torch.ones(size + 1, size, dtype=w.dtype, device=w.device).tril(-1)
    return torch.matmul(sums - sums[size // 2], w)


def _weigh_in_two_factors(steps: Tensor, early: list[Tensor], late: list[Tensor], keys: list[Tensor]) -> Weighed:
    size = steps.shape[1] - 1
    reach, leave = steps.exp(), steps.neg().exp()  # [M,Q+1,K]
    queries = torch.cat([x * reach[:, :-1] for x in early] + [x * reach[:, 1:] for x in late], dim=1)
    keyed = torch.cat([x * leave[:, 1:] for x in keys], dim=1)
    past = torch.ones(size, size, dtype=steps.dtype, device=steps.device)
    rows = [past.tril(-1)] * len(early) + [past.tril()] * len(late)
    mask = torch.cat(rows).repeat(1, len(keys))  # [nq*Q,nk*Q]
    pairs = (queries @ keyed.mT) * mask
    first, last = leave[:, :1], reach[:, -1:]
    return Weighed(queries * first, keyed * last, pairs, first * last)


def _weigh_by_halves(w: Tensor, early: list[Tensor], late: list[Tensor], keys: list[Tensor]) -> Weighed:
    queries = torch.stack([*early, *(x * _exp(w) for x in late)], dim=1)  # [M,nq,Q,K], all reading before their token
    pairs, before, after, total = _pairs_by_halves(w, queries, torch.stack(keys, dim=1))
    if late:  # and their own key, undecayed
        own = torch.stack([torch.stack([(q * k).sum(-1) for k in keys], dim=1) for q in late], dim=1)  # [M,late,nk,Q]
        none = own.new_zeros(own.shape[0], len(early), *own.shape[2:])
        pairs = pairs + torch.cat([none, own], dim=1).diag_embed().transpose(2, 3)
    return Weighed(
        (queries * _exp(before)[:, None]).flatten(1, 2),
        torch.cat([x * _exp(after) for x in keys], dim=1),
        pairs.flatten(3).flatten(1, 2),
        _exp(total),
    )


def _pairs_by_halves(w: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Strictly lower pairs [M,nq,Q,nk,Q], and the log decays [M,Q,K] before and after each token, and of all [M,1,K].

    Blocks of 1, 2, 4, … tokens are paired with their left neighbour: the query's log decay since its block began and
    the key's until its block ended only ever add up, so that nothing overflows and nothing cancels.
    """
    rows, nq, size, width = queries.shape
    nk, half = keys.shape[1], 1
    pairs = queries.new_zeros(rows, nq, size, nk, size)
    before, after, total = torch.zeros_like(w), torch.zeros_like(w), w  # total: [M,blocks,K]
    while half < size:
        halves = (size // (2 * half), 2, half)
        first, second = total.unflatten(1, halves[:2])[:, :, :, None].unbind(2)  # [M,blocks,1,K]
        before0, before1 = before.unflatten(1, halves).unbind(2)  # [M,blocks,half,K]
        after0, after1 = after.unflatten(1, halves).unbind(2)
        left = queries.unflatten(2, halves)[:, :, :, 1] * _exp(before1)[:, None]  # [M,nq,blocks,half,K]
        right = keys.unflatten(2, halves)[:, :, :, 0] * _exp(after0)[:, None]
        left = left.transpose(1, 2).reshape(-1, nq * half, width)
        right = right.transpose(1, 2).reshape(-1, nk * half, width)
        across = (left @ right.mT).reshape(rows, -1, nq, half, nk, half).permute(0, 2, 3, 4, 5, 1)
        blocks = (
            pairs.unflatten(4, halves).unflatten(2, halves).diagonal(dim1=2, dim2=6)
        )  # [M,nq,2,half,nk,2,half,blocks]
        blocks[:, :, 1, :, :, 0].copy_(across)
        before = torch.stack([before0, before1 + first], dim=2).flatten(1, 3)
        after = torch.stack([after0 + second, after1], dim=2).flatten(1, 3)
        total, half = (first + second)[:, :, 0], 2 * half
    return pairs, before, after, total


def _exp(x: Tensor) -> Tensor:
    """e^x, zero where it nears the end of the float range: there exp takes ten times as long."""
    least = -80.0 if x.dtype is torch.float32 else -700.0
    return x.clamp(min=least).exp() * (x > least)
