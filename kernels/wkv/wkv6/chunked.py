"""WKV-6 in chunks, plain PyTorch: the backend for CPU, for autograd, and for any device without Triton."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wkv.checks import compute_dtype
from wkv.decay import weigh
from wkv.pieces import Chunks, run_slabs

CHUNK = 16


def wkv6_chunked(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    s0: Tensor,
    lengths: list[int] | None = None,
    every: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Shapes, names and the formula are those of `wkv.wkv6`; any w <= 0, differentiable (once) in all inputs.

    `lengths`: those of the sequences packed along T. `every`: also return the state before every so many tokens.
    """
    chunks = Chunks.plan(r, CHUNK, lengths, every)
    dtype = compute_dtype(r, w, k, v, u, s0)
    bonus = (r.to(dtype) * u.to(dtype) * k).sum(-1, keepdim=True)  # [B,T,H,1]
    return run_slabs(_slab, chunks, [r, w, k, v, bonus], s0.to(dtype), every)


def _slab(
    start: Tensor, counts: list[int], r: Tensor, w: Tensor, k: Tensor, v: Tensor, bonus: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    weighed = weigh(w, [r], [], [k])
    maps = (weighed.keys, v, weighed.decay)
    before, ends = Scan.apply(*(x.unflatten(0, (sum(counts), -1)) for x in maps), start, counts)
    inside = torch.addcmul(weighed.pairs @ v, bonus, v)  # [M,Q,V]
    return torch.baddbmm(inside, weighed.queries, before.flatten(0, 1).mT), before, ends


class Scan(torch.autograd.Function):
    """The chunks one after the other: s_next = s decay + v^T k; gives all states."""

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, decay: Tensor, start: Tensor, counts: list[int]
    ) -> tuple[Tensor, Tensor]:
        """k [N,G,Q,K], v [N,G,Q,V], decay [N,G,1,K], start [n,G,V,K] -> [N,G,V,K], [n,G,V,K]."""
        before = k.new_empty(*decay.shape[:2], *start.shape[2:])  # [N,G,V,K]
        ends, first = torch.empty_like(start), 0
        for begin, end, count in zip(start, ends, counts, strict=True):
            states = [*before[first : first + count], end]
            states[0].copy_(begin)
            for n, (s, after) in enumerate(pairwise(states), first):
                torch.mul(s, decay[n], out=after).baddbmm_(v[n].mT, k[n])
            first += count
        ctx.save_for_backward(k, v, decay, before)
        ctx.counts = counts
        return before, ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_before: Tensor, d_ends: Tensor) -> tuple[Tensor | None, ...]:
        """The same walk from the end; `after` is the gradient in the state after each chunk."""
        k, v, decay, before = ctx.saved_tensors
        after, d_start, first = torch.empty_like(before), torch.empty_like(d_ends), 0
        for begin, end, count in zip(d_start, d_ends, ctx.counts, strict=True):
            states = [begin, *after[first : first + count]]
            states[-1].copy_(end)
            for i in range(count - 1, -1, -1):
                torch.addcmul(d_before[first + i], states[i + 1], decay[first + i], out=states[i])
            first += count
        return v @ after, k @ after.mT, (before * after).sum(2, keepdim=True), d_start, None
