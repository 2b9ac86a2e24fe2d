"""WKV-7 in chunks, plain PyTorch: the backend for CPU, for autograd, and for any device without Triton."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wkv.checks import compute_dtype
from wkv.decay import weigh
from wkv.pieces import Chunks, run_slabs

CHUNK = 16


def wkv7_chunked(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    s0: Tensor,
    lengths: list[int] | None = None,
    every: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Shapes, names and the formula are those of `wkv.wkv7`; any w <= 0, differentiable (once) in all inputs.

    `lengths`: those of the sequences packed along T. `every`: also return the state before every so many tokens.
    With p_t = s_(t-1) a_t, a chunk that begins at the state s has P = A s^T + A_b P + A_k v: row t of A is a_t decayed,
    A_b and A_k couple it to each b and k before it. Solved for all chunks at once: P = seen s^T + known.
    """
    chunks = Chunks.plan(r, CHUNK, lengths, every)
    return run_slabs(_slab, chunks, [r, w, k, v, a, b], s0.to(compute_dtype(r, w, k, v, a, b, s0)), every)


def _slab(
    start: Tensor, counts: list[int], r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    size = r.shape[1]
    weighed = weigh(w, [a], [r], [b, k])
    of_a, of_r = weighed.pairs[:, :size], weighed.pairs[:, size:]  # [M,Q,2Q]: pairs with b, then with k
    solve = UnitLowerInverse.apply(of_a[..., :size])  # [M,Q,Q]
    seen = solve @ weighed.queries[:, :size]  # [M,Q,K]
    known = solve @ (of_a[..., size:] @ v)  # [M,Q,V]
    maps = (seen, known, weighed.keys[:, :size], weighed.keys[:, size:], v, weighed.decay)
    p, before, ends = Scan.apply(*(x.unflatten(0, (sum(counts), -1)) for x in maps), start, counts)
    inside = of_r @ torch.cat([p.flatten(0, 1), v], dim=1)  # [M,Q,V]
    y = torch.baddbmm(inside, weighed.queries[:, size:], before.flatten(0, 1).mT)
    return y, before, ends


class UnitLowerInverse(torch.autograd.Function):
    """(I - A)^-1 for strictly lower triangular A [M,Q,Q], by blocks of 1, 2, 4, …: a block-triangular solve."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor) -> Tensor:
        """Two neighbouring blocks of the inverse are joined by inverse . A . inverse between them."""
        size = lower.shape[-1]
        at = torch.arange(size, device=lower.device)
        inverse, block = torch.eye(size, dtype=lower.dtype, device=lower.device).expand_as(lower), 1
        while block < size:
            row, column = at[:, None] // block, at // block
            between = lower * ((row % 2 == 1) & (row == column + 1))
            inverse = inverse + between if block == 1 else torch.baddbmm(inverse, inverse @ between, inverse)
            block *= 2
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """From d inverse = inverse dA inverse."""
        (inverse,) = ctx.saved_tensors
        return (inverse.mT @ grad @ inverse.mT).tril(-1)


class Scan(torch.autograd.Function):
    """The chunks one after the other: p = seen s^T + known, s_next = s decay + p^T b + v^T k."""

    @staticmethod
    def forward(
        ctx: Any,
        seen: Tensor,
        known: Tensor,
        b: Tensor,
        k: Tensor,
        v: Tensor,
        decay: Tensor,
        start: Tensor,
        counts: list[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N,G,Q,K or V], decay [N,G,1,K], start [n,G,V,K] -> p [N,G,Q,V], the states before, the last ones."""
        before = known.new_empty(*decay.shape[:2], *start.shape[2:])  # [N,G,V,K]
        p, ends, first = torch.empty_like(known), torch.empty_like(start), 0
        for begin, end, count in zip(start, ends, counts, strict=True):
            states = [*before[first : first + count], end]
            states[0].copy_(begin)
            for n, (s, after) in enumerate(pairwise(states), first):
                torch.baddbmm(known[n], seen[n], s.mT, out=p[n])
                torch.mul(s, decay[n], out=after).baddbmm_(p[n].mT, b[n]).baddbmm_(v[n].mT, k[n])
            first += count
        ctx.save_for_backward(seen, b, k, v, decay, p, before)
        ctx.counts = counts
        return p, before, ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_p: Tensor, d_before: Tensor, d_ends: Tensor) -> tuple[Tensor | None, ...]:
        """The same walk from the end; `after` is the gradient in the state after each chunk."""
        seen, b, k, v, decay, p, before = ctx.saved_tensors
        d_known, after = torch.empty_like(p), torch.empty_like(before)
        d_start, first = torch.empty_like(d_ends), 0
        for begin, end, count in zip(d_start, d_ends, ctx.counts, strict=True):
            states = [begin, *after[first : first + count]]
            states[-1].copy_(end)
            for i in range(count - 1, -1, -1):
                n, d_next = first + i, states[i + 1]
                torch.baddbmm(d_p[n], b[n], d_next.mT, out=d_known[n])
                torch.addcmul(d_before[n], d_next, decay[n], out=states[i]).baddbmm_(d_known[n].mT, seen[n])
            first += count
        d_decay = (before * after).sum(2, keepdim=True)
        return d_known @ before, d_known, p @ after, v @ after, k @ after.mT, d_decay, d_start, None
