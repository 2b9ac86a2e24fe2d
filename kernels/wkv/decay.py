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
    where both fit the float range, which turns the pairs into one matrix product; else the chunk is halved again and
    again, so that no factor exceeds one.
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
    before, after = _sums_before(w), _sums_after(w)
    through = before + w
    queries = torch.stack([*early, *(x * w.exp() for x in late)], dim=1)  # [M,nq,Q,K]
    stacked = torch.stack(keys, dim=1)  # [M,nk,Q,K]
    pairs = _pairs_by_halves(w, queries, stacked)  # [M,nq,Q,nk,Q]
    own = torch.stack([torch.stack([(q * k).sum(-1) for k in keys], dim=1) for q in late], dim=1) if late else None
    if own is not None:  # [M,late,nk,Q]: a late query reads its own key undecayed
        none = own.new_zeros(own.shape[0], len(early), *own.shape[2:])
        pairs = pairs + torch.cat([none, own], dim=1).diag_embed().transpose(2, 3)
    return Weighed(
        torch.cat([x * before.exp() for x in early] + [x * through.exp() for x in late], dim=1),
        torch.cat([x * after.exp() for x in keys], dim=1),
        pairs.flatten(3).flatten(1, 2),
        through[:, -1:].exp(),
    )


def _pairs_by_halves(w: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Strictly lower pairs [M,nq,Q,nk,Q]; all exponents are sums of log decays: no overflow, no cancelling."""
    rows, nq, size, width = queries.shape
    nk, half = keys.shape[1], size // 2
    if size == 1:
        return queries.new_zeros(rows, nq, 1, nk, 1)
    w0, w1 = w.unflatten(1, (2, half)).unbind(1)
    q0, q1 = queries.unflatten(2, (2, half)).unbind(2)
    k0, k1 = keys.unflatten(2, (2, half)).unbind(2)  # [M,nk,Q/2,K]
    left = (q1 * _sums_before(w1).exp()[:, None]).reshape(rows, nq * half, width)
    right = (k0 * _sums_after(w0).exp()[:, None]).reshape(rows, nk * half, width)
    across = (left @ right.mT).unflatten(2, (nk, half)).unflatten(1, (nq, half))  # [M,nq,Q/2,nk,Q/2]
    top, low = _pairs_by_halves(torch.cat([w0, w1]), torch.cat([q0, q1]), torch.cat([k0, k1])).chunk(2)
    return torch.cat([torch.cat([top, torch.zeros_like(top)], -1), torch.cat([across, low], -1)], dim=2)


def _sums_before(w: Tensor) -> Tensor:
    """Sums over the tokens before each one; shifted rather than subtracted, so that -inf stays -inf."""
    return torch.cat([torch.zeros_like(w[:, :1]), w[:, :-1]], dim=1).cumsum(1)


def _sums_after(w: Tensor) -> Tensor:
    return _sums_before(w.flip(1)).flip(1)
