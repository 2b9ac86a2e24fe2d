"""WKV-7 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.wkv7.triton_gradients import gradients
from wkv.wkv7.triton_prepare import prepare
from wkv.wkv7.triton_scan import scan, scan_back

BV = 32
STAGES = 2
WARPS = 4


def padded(size: int) -> int:
    """The side of the tiles that hold heads of this size: 64 or 128."""
    return max(64, triton.next_power_of_2(size))


def product_dtype(*inputs: Tensor) -> torch.dtype:
    """What the operands of the products are: fp16, or fp32 where an input is."""
    return torch.float32 if any(x.dtype is torch.float32 for x in inputs) else torch.float16


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, table: ChunkTable, keep: bool
) -> tuple[Tensor, ...]:
    """(y, s, and what the backward needs: states, inverse, Q, P, G, F, decays, sizes), of G chunks of C tokens.

    states: float32 [G,H,V,K], before each chunk; the others as in `triton_prepare`, K padded. Unless `keep`, only y and
    s are of use.
    """
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    half = product_dtype(r, k, v, a, b)
    exact = half is torch.float32
    BK, G = padded(K), table.chunks
    kept = G if keep else 0
    q, f, inverse = (r.new_empty((n, H, C, x), dtype=half) for n, x in ((G, BK), (G, BK), (kept, C)))
    p, g = r.new_empty((G, H, C, C), dtype=half), r.new_empty((G, H, BK, BK), dtype=half)
    decay, sizes = s0.new_empty((G, H, BK)), s0.new_empty((2, G, H, C))
    y, s, states = torch.empty_like(v), torch.empty_like(s0), s0.new_empty((kept, H, V, K))
    tile = min(BV, padded(V))
    with torch.cuda.device_of(r):
        prepare[(G * H,)](
            r, w, k, a, b, q, p, g, f, inverse, decay, sizes[0], sizes[1], table.starts, table.tokens, H,
            K=K, BK=BK, C=C, KEEP=keep, EXACT=exact, num_warps=WARPS, num_stages=1,
        )  # fmt: skip
        scan[(table.sequences * H * triton.cdiv(V, tile),)](
            q, p, g, f, decay, sizes[0], sizes[1], v, s0, y, s, states, table.starts, table.first, table.tokens, H,
            K=K, V=V, BK=BK, BV=tile, C=C, STATES=keep, EXACT=exact,
            num_warps=4, num_stages=1 if exact else STAGES,
        )  # fmt: skip
    return y, s, states, inverse, q, p, g, f, decay, sizes


def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    states: Tensor,
    inverse: Tensor,
    q: Tensor,
    p: Tensor,
    g: Tensor,
    f: Tensor,
    decay: Tensor,
    sizes: Tensor,
    dy: Tensor,
    ds: Tensor,
    dstates: Tensor | None,
    table: ChunkTable,
) -> tuple[Tensor, ...]:
    """(dr, dw, dk, dv, da, db, ds0), from what `forward` kept and the gradients of y, of s and of the states."""
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    exact = inverse.dtype is torch.float32
    dr, dw, dk, dv, da, db = (torch.empty_like(x) for x in (r, w, k, v, a, b))
    ds0, after = torch.empty_like(ds), torch.empty_like(states)
    BK, tile = padded(K), min(BV, padded(V))
    with torch.cuda.device_of(r):
        scan_back[(table.sequences * H * triton.cdiv(V, tile),)](
            q, p, g, f, decay, sizes[0], sizes[1], dy, ds, dstates, dv, ds0, after, table.starts, table.first,
            table.tokens, H, K=K, V=V, BK=BK, BV=tile, C=C, EXACT=exact,
            num_warps=4, num_stages=1 if exact else STAGES,
        )  # fmt: skip
        gradients[(table.chunks * H,)](
            r, w, k, v, a, b, states, inverse, sizes[0], sizes[1], after, dy, dr, dw, dk, da, db,
            table.starts, table.tokens, H, K=K, V=V, BK=BK, BV=padded(V), C=C, EXACT=exact,
            num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    return dr, dw, dk, dv, da, db, ds0
