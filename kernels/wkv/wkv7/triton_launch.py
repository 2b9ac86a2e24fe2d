"""WKV-7 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.wkv7.triton_backward import gradients, scan_back
from wkv.wkv7.triton_scan import output, scan
from wkv.wkv7.triton_solve import solve

SPLIT = False
STAGES = 1


def padded(size: int) -> int:
    """The side of the tiles that hold heads of this size."""
    return max(16, triton.next_power_of_2(size))


def product_dtype(*inputs: Tensor) -> torch.dtype:
    """What the operands of the products are: fp16, or fp32 where an input is."""
    return torch.float32 if any(x.dtype is torch.float32 for x in inputs) else torch.float16


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, table: ChunkTable, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(y, s, and what the backward needs: states, inverse, removals, sizes), of G chunks of C tokens.

    states: float32 [G,H,V,K], before each chunk; inverse: [G,H,C,C]; removals: U [G,H,C,V padded], in units of sizes:
    float32 [G,H]. Unless `keep`, only y and s are of use.
    """
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    half = product_dtype(r, k, v, a, b)
    exact = half is torch.float32
    BK, BV = padded(K), padded(V)
    G, kept = table.chunks, table.chunks if keep else 0
    inverse = r.new_empty((G, H, C, C), dtype=half)
    y, s = torch.empty_like(v), torch.empty_like(s0)
    split = SPLIT
    states = s0.new_empty((G if split else kept, H, V, K))
    u, sizes = s0.new_empty((kept, H, C, BV), dtype=half), s0.new_empty((kept, H))
    options = {"num_warps": 8 if max(BK, BV) > 64 else 4, "num_stages": 1 if exact else STAGES}
    sizes_of = {"K": K, "V": V, "BK": BK, "BV": BV, "C": C, "EXACT": exact}
    with torch.cuda.device_of(r):
        solve[(G * H,)](
            w, a, b, inverse, table.starts, table.tokens, H, K=K, BK=BK, C=C, EXACT=exact, num_warps=4, num_stages=1
        )
        scan[(table.sequences * H,)](
            r, w, k, v, a, b, inverse, s0, y, s, states, u, sizes, table.starts, table.first, table.tokens, H,
            OUTPUT=not split, STATES=keep or split, KEEP=keep and not split, **sizes_of, **options,
        )  # fmt: skip
        if split:
            output[(G * H,)](
                r, w, k, v, a, b, inverse, y, states, u, sizes, table.starts, table.tokens, H,
                KEEP=keep, **sizes_of, **options,
            )  # fmt: skip
    return y, s, states, inverse, u, sizes


def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    states: Tensor,
    inverse: Tensor,
    removals: Tensor,
    sizes: Tensor,
    dy: Tensor,
    ds: Tensor,
    dstates: Tensor | None,
    table: ChunkTable,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dr, dw, dk, dv, da, db, ds0), from what `forward` kept and the gradients of y, of s and of the states."""
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    exact = inverse.dtype is torch.float32
    grads = [torch.empty_like(x) for x in (r, w, k, v, a, b)]
    ds0, after = torch.empty_like(ds), torch.empty_like(states)
    dx, d_sizes = torch.empty_like(removals), torch.empty_like(sizes)
    BK, BV = padded(K), padded(V)
    options = {"num_warps": 8 if max(BK, BV) > 64 else 4, "num_stages": 1 if exact else STAGES}
    sizes_of = {"K": K, "V": V, "BK": BK, "BV": BV, "C": C, "EXACT": exact}
    with torch.cuda.device_of(r):
        scan_back[(table.sequences * H,)](
            r, w, a, b, inverse, dy, ds, dstates, ds0, after, dx, d_sizes, table.starts, table.first,
            table.tokens, H, **sizes_of, **options,
        )  # fmt: skip
        gradients[(table.chunks * H,)](
            r, w, k, v, a, b, states, removals, sizes, after, dx, d_sizes, dy, *grads,
            table.starts, table.tokens, H, **sizes_of, **options,
        )  # fmt: skip
    return (*grads, ds0)
