"""WKV-6 in chunks, plain PyTorch: the backend for CPU, for autograd, and for any device without Triton."""

from typing import Any

import torch
from torch import Tensor

from wkv.checks import compute_dtype
from wkv.decay import weigh
from wkv.pieces import Chunks

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
    """Shapes, names and the formula are those of `wkv.wkv6`; any w <= 0, differentiable in all inputs.

    `lengths`: those of the sequences packed along T. `every`: also return the state before every so many tokens.
    """
    chunks = Chunks.plan(r, CHUNK, lengths, every)
    dtype = compute_dtype(r, w, k, v, u, s0)
    bonus = chunks.cut((r.to(dtype) * u.to(dtype) * k).sum(-1, keepdim=True), dtype).flatten(0, 1)  # [M,Q,1]
    r, w, k, v = (chunks.cut(x, dtype) for x in (r, w, k, v))  # [N,G,Q,K]
    both = r.shape[:2]
    r, w, k, v = (x.flatten(0, 1) for x in (r, w, k, v))  # [M=N*G,Q,K]
    weighed = weigh(w, [r], [], [k])
    adds = (v.mT @ weighed.keys).unflatten(0, both)  # [N,G,V,K]
    start = s0.reshape(len(chunks.counts), -1, *s0.shape[2:]).to(dtype)  # [n,G,V,K]
    before, ends = Scan.apply(weighed.decay.unflatten(0, both), adds, start, chunks.counts)
    y = torch.baddbmm(weighed.pairs @ v, weighed.queries, before.flatten(0, 1).mT) + bonus * v  # [M,Q,V]
    kept = chunks.kept(before) if every else None
    return chunks.join(y.unflatten(0, both)), ends.reshape(s0.shape), kept


class Scan(torch.autograd.Function):
    """s_(n+1) = s_n decay_n + adds_n over the chunks of each sequence; gives every s_n and the last ones."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, adds: Tensor, start: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
        """decay [N,G,1,K], adds [N,G,V,K], start [n,G,V,K] -> [N,G,V,K], [n,G,V,K]."""
        before, ends, n = torch.empty_like(adds), start.clone(), 0
        for state, count in zip(ends, counts, strict=True):
            for m in range(n, n + count):
                before[m].copy_(state)
                torch.addcmul(adds[m], before[m], decay[m], out=state)
            n += count
        ctx.save_for_backward(decay, before)
        ctx.counts = counts
        return before, ends

    @staticmethod
    def backward(ctx: Any, d_before: Tensor, d_ends: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The same scan from the end: ds_n = d_before_n + ds_(n+1) decay_n."""
        decay, before = ctx.saved_tensors
        d_adds, d_start, n = torch.empty_like(before), d_ends.clone(), before.shape[0]
        for state, count in zip(reversed(d_start.unbind()), reversed(ctx.counts), strict=True):
            for m in range(n - 1, n - count - 1, -1):
                d_adds[m].copy_(state)
                torch.addcmul(d_before[m], d_adds[m], decay[m], out=state)
            n -= count
        return (before * d_adds).sum(2, keepdim=True), d_adds, d_start, None
