"""WKV-7 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import math

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.triton_device import multiprocessors, shared_memory
from wkv.wkv7.triton_gradients import gradients
from wkv.wkv7.triton_prepare import prepare, solve
from wkv.wkv7.triton_scan import scan, scan_back
from wkv.wkv7.triton_walk import walk, walk_back

# What `forward` keeps.
BACKWARD, STATES = 1, 2
# Value rows of a program of the scan where only the outputs are wanted.
TILE = 32
# A number that the compiler of the kernels is not to know: see `triton_pieces.exp`.
LOG2_E = math.log2(math.e)


def padded(size: int) -> int:
    """The side of the tiles that hold heads of this size: 64 or 128."""
    return max(64, triton.next_power_of_2(size))


def product_dtype(*inputs: Tensor) -> torch.dtype:
    """What the operands of the products are: fp16, or fp32 where an input is."""
    return torch.float32 if any(x.dtype is torch.float32 for x in inputs) else torch.float16


def stages(exact: bool) -> int:
    """How many chunks' loads are under way in a scan: three where there is room for their tiles."""
    return 1 if exact or shared_memory() < 200_000 else 3


def fills(programs: int, x: Tensor) -> bool:
    """Whether one program a head keeps the GPU of `x` busy: three for two of its multiprocessors."""
    return 2 * programs >= 3 * multiprocessors(x.device)


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, table: ChunkTable, keep: int
) -> tuple[Tensor, ...]:
    """(y, s, states, and what the backward needs), of G chunks of C tokens.

    states: float32 [G,H,V,K], before each chunk, with STATES in `keep`. With BACKWARD: the states again [G,H,K,V padded]
    and u [G,H,C,V padded] in units of sizes [G,H], the sizes of r and k [2,G,H,C], then the inverse [G,H,C,C] where the
    heads alone fill the GPU, else as in `triton_prepare` Q, P, G, F, M, N and the decays. What is not needed is empty.
    """
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    half = product_dtype(r, k, v, a, b)
    exact = half is torch.float32
    BK, BV, G = padded(K), padded(V), table.chunks
    again, kept = (G if keep & STATES else 0), (G if keep & BACKWARD else 0)
    walks = fills(table.sequences * H, r)
    inverse = r.new_empty((G, H, C, C), dtype=half)
    before, u = r.new_empty((kept, H, BK, BV), dtype=half), r.new_empty((kept, H, C, BV), dtype=half)
    size, sizes = s0.new_empty((kept, H)), s0.new_empty((2, kept if walks else G, H, C))
    y, s, states = torch.empty_like(v), torch.empty_like(s0), s0.new_empty((again, H, V, K))
    shape = {"K": K, "V": V, "BK": BK, "C": C, "EXACT": exact}
    with torch.cuda.device_of(r):
        solve[(G * H,)](w, a, b, inverse, table.starts, table.tokens, H, K=K, BK=BK, C=C, EXACT=exact, num_stages=1)
        if walks:
            prepared = empty_prepared(r, s0, 0, half)
            walk[(table.sequences * H,)](
                r, w, k, v, a, b, inverse, s0, y, s, states, before, u, size, *sizes, table.starts,
                table.first, table.tokens, H, LOG2_E, BV=BV, STATES=again > 0, KEEP=kept > 0, num_stages=1, **shape,
            )  # fmt: skip
            return y, s, states, before, u, size, sizes, inverse, *prepared
        prepared = empty_prepared(r, s0, G, half, kept)
        q, p, g, f, m, n, decay = prepared
        reading, removal = r.new_empty((kept, H, C, C), dtype=half), r.new_empty((kept, H, C, BK), dtype=half)
        prepare[(G * H,)](
            r, w, k, a, b, inverse, q, p, g, f, removal, reading, m, n, decay, *sizes,
            table.starts, table.tokens, H, LOG2_E, K=K, BK=BK, C=C, KEEP=kept > 0, EXACT=exact, num_stages=1,
        )  # fmt: skip
        tile = BV if kept else TILE
        scan[(table.sequences * H * triton.cdiv(V, tile),)](
            q, p, g, f, removal, reading, decay, *sizes, v, s0, y, s, states, before, u, size,
            table.starts, table.first, table.tokens, H,
            BV=tile, STATES=again > 0, KEEP=kept > 0, num_stages=stages(exact), **shape,
        )  # fmt: skip
    return y, s, states, before, u, size, sizes, inverse[:0].clone(), *prepared


def empty_prepared(r: Tensor, s0: Tensor, G: int, half: torch.dtype, kept: int = 0) -> list[Tensor]:
    """Space for Q, P, G, F, M, N and the decays of G chunks."""
    H, C, BK = r.shape[2], CHUNK, padded(r.shape[3])
    shapes = [(G, H, C, BK), (G, H, C, C), (G, H, BK, BK), (G, H, C, BK), (kept, H, C, C), (kept, H, C, BK)]
    tiles = [r.new_empty(shape, dtype=half) for shape in shapes]
    return [*tiles, s0.new_empty((G, H, BK))]


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
    sizes: Tensor,
    inverse: Tensor,
    q: Tensor,
    p: Tensor,
    g: Tensor,
    f: Tensor,
    m: Tensor,
    n: Tensor,
    decay: Tensor,
    dy: Tensor,
    ds: Tensor,
    dstates: Tensor | None,
    table: ChunkTable,
) -> tuple[Tensor, ...]:
    """(dr, dw, dk, dv, da, db, ds0), from what `forward` kept and the gradients of y, of s and of the states."""
    H, K, V, C = r.shape[2], r.shape[3], v.shape[3], CHUNK
    exact = before.dtype is torch.float32
    dr, dw, dk, dv, da, db = (torch.empty_like(x) for x in (r, w, k, v, a, b))
    ds0, after, dx, d_size = (torch.empty_like(x) for x in (ds, before, u, size))
    shape = {"K": K, "V": V, "BK": padded(K), "BV": padded(V), "C": C, "EXACT": exact}
    with torch.cuda.device_of(r):
        if inverse.numel():
            walk_back[(table.sequences * H,)](
                r, w, k, a, b, *sizes, inverse, dy, ds, dstates, dv, ds0, after, dx, d_size, table.starts,
                table.first, table.tokens, H, LOG2_E, num_stages=1, **shape,
            )  # fmt: skip
        else:
            scan_back[(table.sequences * H,)](
                q, p, g, f, m, n, decay, *sizes, dy, ds, dstates, dv, ds0, after, dx, d_size,
                table.starts, table.first, table.tokens, H, num_stages=stages(exact), **shape,
            )  # fmt: skip
        gradients[(table.chunks * H,)](
            r, w, k, v, a, b, *sizes, before, u, size, after, dx, d_size, dy, dr, dw, dk, da, db,
            table.starts, table.tokens, H, LOG2_E, num_stages=1, **shape,
        )  # fmt: skip
    return dr, dw, dk, dv, da, db, ds0
