"""WKV-7 in chunks, plain PyTorch: the backend for CPU, for autograd, and for any device without Triton."""

from typing import Any

import torch
from torch import Tensor

from ..checks import compute_dtype
from ..decay import weigh
from ..pieces import Chunks

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
    """Shapes, names and the formula are those of `wkv.wkv7`; any w <= 0, differentiable in all inputs.

    `lengths`: those of the sequences packed along T. `every`: also return the state before every so many tokens.
    A chunk is an affine map of the state before it, s -> s X + Z. With p_t = s_(t-1) a_t read inside the chunk,
    P = (I - A)^-1 (Q s^T + A' V), where the triangle A couples a to b, A' couples a to k, and Q is a, decayed.
    """
    chunks = Chunks.plan(r, CHUNK, lengths, every)
    dtype = compute_dtype(r, w, k, v, a, b, s0)
    r, w, k, v, a, b = (chunks.cut(x, dtype) for x in (r, w, k, v, a, b))  # [N,G,Q,K]
    count, heads, _, width = r.shape
    flat = [x.flatten(0, 1) for x in (r, w, k, v, a, b)]  # [N*G,Q,K]
    reads, moves, adds = _chunk_maps(*flat)  # [NG,Q,K+V], [NG,K,K], [NG,V,K]
    start = s0.reshape(len(chunks.counts), -1, *s0.shape[2:]).to(dtype)  # [n,G,V,K]
    before, ends = Scan.apply(
        moves.unflatten(0, (count, heads)), adds.unflatten(0, (count, heads)), start, chunks.counts
    )
    y = torch.baddbmm(reads[..., width:], reads[..., :width], before.flatten(0, 1).mT)  # [NG,Q,V]
    kept = chunks.kept(before) if every else None
    return chunks.join(y.unflatten(0, (count, heads))), ends.reshape(s0.shape), kept


def _chunk_maps(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each chunk as maps of the state s before it: y = reads [s^T; I], s_next = s moves + adds."""
    size, width = r.shape[1:]
    weighed = weigh(w, [a], [r], [b, k])
    through_b, through_k = weighed.pairs[..., :size], weighed.pairs[..., size:]  # [M,2Q,Q]
    seen = torch.cat([weighed.queries, through_k @ v], dim=2)  # [M,2Q,K+V]: of s^T, and of the chunk's own k and v
    solved = UnitLowerInverse.apply(through_b[:, :size]) @ seen[:, :size]  # [M,Q,K+V]: P
    reads = torch.baddbmm(seen[:, size:], through_b[:, size:], solved)
    to_b, to_k = weighed.keys[:, :size], weighed.keys[:, size:]
    moves = solved[..., :width].mT @ to_b + torch.diag_embed(weighed.decay[:, 0])
    adds = torch.baddbmm(solved[..., width:].mT @ to_b, v.mT, to_k)
    return reads, moves, adds


class UnitLowerInverse(torch.autograd.Function):
    """(I - A)^-1 for strictly lower triangular A [M,Q,Q], Q a power of two, by blocks of 1, 2, 4, …"""

    @staticmethod
    def forward(ctx: Any, lower: Tensor) -> Tensor:
        """Two neighbouring blocks of the inverse are joined by inverse . A . inverse between them."""
        size = lower.shape[-1]
        at = torch.arange(size, device=lower.device)
        inverse, block = torch.eye(size, dtype=lower.dtype, device=lower.device).expand_as(lower), 1
        while block < size:
            joined = (at[:, None] // block % 2 == 1) & (at[:, None] // block == at // block + 1)
            between = lower.masked_fill(~joined, 0)
            inverse = inverse + (between if block == 1 else inverse @ between @ inverse)
            block *= 2
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """From d inverse = inverse dA inverse."""
        (inverse,) = ctx.saved_tensors
        return (inverse.mT @ grad @ inverse.mT).tril(-1)


class Scan(torch.autograd.Function):
    """s_(n+1) = s_n moves_n + adds_n over the chunks of each sequence; gives every s_n and the last ones."""

    @staticmethod
    def forward(ctx: Any, moves: Tensor, adds: Tensor, start: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
        """moves [N,G,K,K], adds [N,G,V,K], start [n,G,V,K] -> [N,G,V,K], [n,G,V,K]."""
        before, ends, n = torch.empty_like(adds), start.clone(), 0
        for state, count in zip(ends, counts, strict=True):
            for m in range(n, n + count):
                before[m].copy_(state)
                torch.baddbmm(adds[m], before[m], moves[m], out=state)
            n += count
        ctx.save_for_backward(moves, before)
        ctx.counts = counts
        return before, ends

    @staticmethod
    def backward(ctx: Any, d_before: Tensor, d_ends: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The same scan from the end: ds_n = d_before_n + ds_(n+1) moves_n^T."""
        moves, before = ctx.saved_tensors
        d_adds, d_start, n = torch.empty_like(before), d_ends.clone(), before.shape[0]
        for state, count in zip(reversed(d_start.unbind()), reversed(ctx.counts), strict=True):
            for m in range(n - 1, n - count - 1, -1):
                d_adds[m].copy_(state)
                torch.baddbmm(d_before[m], d_adds[m], moves[m].mT, out=state)
            n -= count
        return before.mT @ d_adds, d_adds, d_start, None
