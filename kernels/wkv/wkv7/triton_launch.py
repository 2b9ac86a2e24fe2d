"""WKV-7 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import math

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.wkv7.triton_gradients import gradients
from wkv.wkv7.triton_prepare import prepare, solve
from wkv.wkv7.triton_scan import scan, scan_back

# What `forward` keeps.
BACKWARD, STATES = 1, 2
# Value rows of a program of the scan, and how many chunks' loads are under way in it.
TILE, STAGES = 32, 3
# A number that the compiler of the kernels is not to know: see `triton_pieces.exp`.
LOG2_E = math.log2(math.e)


def padded(size: int) -> int:
    """The side of the tiles that hold heads of this size: 64 or 128."""
    return max(64, triton.next_power_of_2(size))


def product_dtype(*inputs: Tensor) -> torch.dtype:
    """What the operands of the products are: fp16, or fp32 where an input is."""
    return torch.float32 if any(x.dtype is torch.float32 for x in inputs) else torch.float16


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, table: ChunkTable, keep: int
) -> tuple[Tensor, ...]:
    """(y, s, states, and what the backward needs), of G chunks of C tokens.

    states: float32 [G,H,V,K], before each chunk, with STATES in `keep`; the rest with BACKWARD in it: the states again
    [G,H,K,V padded] and u [G,H,C,V padded] in units of sizes [G,H], then as in `triton_prepare` Q, P, G, F, M, N, the
    decays and the sizes of r and k [2,G,H,C]. What is not asked for is empty.
    """
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    half = product_dtype(r, k, v, a, b)
    exact = half is torch.float32
    BK, G = padded(K), table.chunks
    again, kept = (G if keep & STATES else 0), (G if keep & BACKWARD else 0)
    tile = padded(V) if kept else TILE
    inverse, p = (r.new_empty((G, H, C, C), dtype=half) for _ in range(2))
    q, f = (r.new_empty((G, H, C, BK), dtype=half) for _ in range(2))
    g = r.new_empty((G, H, BK, BK), dtype=half)
    reading, m = (r.new_empty((kept, H, C, C), dtype=half) for _ in range(2))
    removal, n = (r.new_empty((kept, H, C, BK), dtype=half) for _ in range(2))
    decay, sizes = s0.new_empty((G, H, BK)), s0.new_empty((2, G, H, C))
    before, u = r.new_empty((kept, H, BK, tile), dtype=half), r.new_empty((kept, H, C, tile), dtype=half)
    size = s0.new_empty((kept, H))
    y, s, states = torch.empty_like(v), torch.empty_like(s0), s0.new_empty((again, H, V, K))
    with torch.cuda.device_of(r):
        solve[(G * H,)](w, a, b, inverse, table.starts, table.tokens, H, K=K, BK=BK, C=C, EXACT=exact, num_stages=1)
        prepare[(G * H,)](
            r, w, k, a, b, inverse, q, p, g, f, removal, reading, m, n, decay, sizes[0], sizes[1],
            table.starts, table.tokens, H, LOG2_E, K=K, BK=BK, C=C, KEEP=kept > 0, EXACT=exact, num_stages=1,
        )  # fmt: skip
        scan[(table.sequences * H * triton.cdiv(V, tile),)](
            q, p, g, f, removal, reading, decay, sizes[0], sizes[1], v, s0, y, s, states, before, u, size,
            table.starts, table.first, table.tokens, H, K=K, V=V, BK=BK, BV=tile, C=C,
            STATES=again > 0, KEEP=kept > 0, EXACT=exact, num_stages=1 if exact else STAGES,
        )  # fmt: skip
    return y, s, states, before, u, size, q, p, g, f, m, n, decay, sizes


def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    states: Tensor,
    before: Tensor,
    u: Tensor,
    size: Tensor,
    q: Tensor,
    p: Tensor,
    g: Tensor,
    f: Tensor,
    m: Tensor,
    n: Tensor,
    decay: Tensor,
    sizes: Tensor,
    dy: Tensor,
    ds: Tensor,
    dstates: Tensor | None,
    table: ChunkTable,
) -> tuple[Tensor, ...]:
    """(dr, dw, dk, dv, da, db, ds0), from what `forward` kept and the gradients of y, of s and of the states."""
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    exact = q.dtype is torch.float32
    BK, BV = padded(K), padded(V)
    dr, dw, dk, dv, da, db = (torch.empty_like(x) for x in (r, w, k, v, a, b))
    ds0, after, dx, d_size = (torch.empty_like(x) for x in (ds, before, u, size))
    with torch.cuda.device_of(r):
        scan_back[(table.sequences * H,)](
            q, p, g, f, m, n, decay, sizes[0], sizes[1], dy, ds, dstates, dv, ds0, after, dx, d_size,
            table.starts, table.first, table.tokens, H,
            K=K, V=V, BK=BK, BV=BV, C=C, EXACT=exact, num_stages=1 if exact else STAGES,
        )  # fmt: skip
        gradients[(table.chunks * H,)](
            r, w, k, v, a, b, sizes[0], sizes[1], before, u, size, after, dx, d_size, dy, dr, dw, dk, da, db,
            table.starts, table.tokens, H, LOG2_E, K=K, V=V, BK=BK, BV=BV, C=C, EXACT=exact, num_stages=1,
        )  # fmt: skip
    return dr, dw, dk, dv, da, db, ds0
