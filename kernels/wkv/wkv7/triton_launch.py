"""WKV-7 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import functools
import math

import torch
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.triton_device import multiprocessors, shared_memory
from wkv.triton_launcher import launch
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
    return 64 if size <= 64 else 1 << (size - 1).bit_length()


def product_dtype(*inputs: Tensor) -> torch.dtype:
    """What the operands of the products are: fp16, or fp32 where an input is."""
    return torch.float32 if any(x.dtype is torch.float32 for x in inputs) else torch.float16


def stages(exact: bool, r: Tensor, v: Tensor) -> int:
    """How many chunks' loads are under way in a scan: three where there is room for their tiles."""
    return 1 if exact or max(r.shape[3], v.shape[3]) > 64 or shared_memory(r.device) < 200_000 else 3


def walks(programs: int, r: Tensor, w: Tensor, v: Tensor, kept: bool) -> bool:
    """Whether one program a head has the room it needs and keeps the GPU busy: three for two of its multiprocessors.

    Never for a backward pass (`kept`) where w is fp32 beside 16-bit inputs, as in the models: on an H100, compiled by
    Triton 3.6, `walk_back` then gave NaN from its second chunk on.
    """
    roomy = max(r.shape[3], v.shape[3]) <= 64 or shared_memory(r.device) >= 120_000
    mixed = kept and w.dtype is torch.float32 and r.dtype is not torch.float32
    return roomy and not mixed and 2 * programs >= 3 * multiprocessors(r.device)


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, table: ChunkTable, keep: int
) -> tuple[Tensor, ...]:
    """(y, s, states), and with BACKWARD in `keep` what the backward needs, of G chunks of C tokens.

    states: float32 [G,H,V,K], before each chunk, empty without STATES in `keep`. Then the states again [G,H,K,V padded]
    and u [G,H,C,V padded] in units of sizes [G,H], the sizes of r, k and v [3,G,H,C], and either the inverse [G,H,C,C],
    where the heads alone fill the GPU, or as in `triton_prepare` Q, P, G, F, M, N and the decays: the other is empty.
    """
    H, K, V, C, G = r.shape[2], r.shape[3], v.shape[3], CHUNK, table.chunks
    half = product_dtype(r, k, v, a, b)
    exact = half is torch.float32
    BK, BV = padded(K), padded(V)
    again, kept = bool(keep & STATES), bool(keep & BACKWARD)
    walking = walks(table.sequences * H, r, w, v, kept)
    inverse = r.new_empty((G, H, C, C), dtype=half)
    y, s, states = torch.empty_like(v), torch.empty_like(s0), s0.new_empty((G if again else 0, H, V, K))
    before = u = inverse  # not written to unless they are kept
    size, sizes = s, s.expand(3, *s.shape)
    if kept:
        before, u = r.new_empty((G, H, BK, BV), dtype=half), r.new_empty((G, H, C, BV), dtype=half)
        size = s0.new_empty((G, H))
    if kept or not walking:
        sizes = s0.new_empty((3, G, H, C))
    options = {"K": K, "BK": BK, "C": C, "EXACT": exact}
    more = {"V": V, "STATES": again, "KEEP": kept, **options}
    chunks, tokens = (table.starts, table.first), table.tokens
    with torch.cuda.device_of(r):
        launch(solve, G * H, w, a, b, inverse, table.starts, tokens, H, num_stages=1, **options)
        if walking:
            launch(
                walk, table.sequences * H,
                r, w, k, v, a, b, inverse, s0, y, s, states, before, u, size, *sizes, *chunks, tokens, H, LOG2_E,
                BV=BV, num_stages=1, **more,
            )  # fmt: skip
            prepared = empty_prepared(r, s0, 0, half) if kept else []
        else:
            prepared = empty_prepared(r, s0, G, half, G if kept else 0)
            q, p, g, f, m, n, decay = prepared
            reading, removal = (torch.empty_like(m), torch.empty_like(n)) if kept else (m, n)
            launch(
                prepare, G * H,
                r, w, k, a, b, inverse, q, p, g, f, removal, reading, m, n, decay, *sizes[:2], table.starts, tokens, H,
                LOG2_E, KEEP=kept, num_stages=1, **options,
            )  # fmt: skip
            tile = BV if kept else TILE
            launch(
                scan, table.sequences * H * -(-V // tile),
                q, p, g, f, removal, reading, decay, *sizes, v, s0, y, s, states, before, u, size, *chunks, tokens, H,
                BV=tile, num_stages=stages(exact, r, v), **more,
            )  # fmt: skip
            inverse = inverse.new_empty((0, H, C, C))
    return (y, s, states, before, u, size, sizes, inverse, *prepared) if kept else (y, s, states)


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
    dtypes = [x.dtype for x in (r, k, a, b)]
    common = functools.reduce(torch.promote_types, dtypes)
    r, k, a, b = (x.to(common) for x in (r, k, a, b))
    dr, dw, dk, dv, da, db = (torch.empty_like(x) for x in (r, w, k, v, a, b))
    ds0, after, dx, d_size, dy_size = (torch.empty_like(x) for x in (ds, before, u, size, sizes[2]))
    shape = {"K": K, "V": V, "BK": padded(K), "BV": padded(V), "C": C, "EXACT": exact}
    with torch.cuda.device_of(r):
        if inverse.numel():
            launch(
                walk_back, table.sequences * H,
                r, w, k, a, b, *sizes[:2], inverse, dy, ds, dstates, dv, ds0, after, dx, d_size, dy_size, table.starts,
                table.first, table.tokens, H, LOG2_E, num_stages=1, **shape,
            )  # fmt: skip
        else:
            launch(
                scan_back, table.sequences * H,
                q, p, g, f, m, n, decay, *sizes[:2], dy, ds, dstates, dv, ds0, after, dx, d_size, dy_size,
                table.starts, table.first, table.tokens, H, num_stages=stages(exact, r, v), **shape,
            )  # fmt: skip
        launch(
            gradients, table.chunks * H,
            r, w, k, v, a, b, sizes[2], dy_size, before, u, size, after, dx, d_size, dy, dr, dw, dk, da, db,
            table.starts, table.tokens, H, LOG2_E, num_stages=1, **shape,
        )  # fmt: skip
    dr, dk, da, db = (x.to(dtype) for x, dtype in zip((dr, dk, da, db), dtypes, strict=True))
    return dr, dw, dk, dv, da, db, ds0
