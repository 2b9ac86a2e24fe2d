"""WKV-6 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.triton_device import shared_memory
from wkv.triton_launcher import launch
from wkv.wkv6.triton_backward import gradients
from wkv.wkv6.triton_scan import output, scan

# Below so many (sequence, head, tile) programs the outputs are computed apart from the walk over the states.
FEW = 128
# Channels that `gradients` takes at once, where it takes them in turn from one tile of values. Elsewhere it takes 64:
# Triton 3.6 then computes some products 32 wide wrongly.
WIDTH, SAFE = 32, 64
# Value rows of a program of a walk that has no outputs.
ROWS = 16


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, s0: Tensor, table: ChunkTable, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, s, states before every chunk [chunks,H,V,K]); the states are empty unless `keep`."""
    y, s = torch.empty_like(v), torch.empty_like(s0)
    with torch.cuda.device_of(r):
        states = _walk(r, w, k, v, u, s0, None, y, s, table, False, keep)
    return y, s, states if keep else states.new_empty((0, *s0.shape[1:]))


def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    states: Tensor,
    dy: Tensor,
    ds: Tensor,
    dstates: Tensor | None,
    table: ChunkTable,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dr, dw, dk, dv, du, ds0), from the states that `forward` kept and the gradients of y, of s and of the states."""
    H, K, V = r.shape[2], r.shape[3], v.shape[3]
    dr, dw, dk, dv, ds0 = (torch.empty_like(x) for x in (r, w, k, v, ds))
    with torch.cuda.device_of(r):
        after = _walk(k, w, r, dy, u, ds, dstates, dv, ds0, table, True, True)
        du = ds.new_empty((table.chunks, H, K))  # each chunk's part
        BV = _sizes(K, V)[1]
        BK = WIDTH if WIDTH < K and V <= BV else SAFE
        launch(
            gradients, table.chunks * H,
            r, w, k, v, u, states, after, dy, dr, dw, dk, du, table.starts, table.tokens, H,
            K=K, V=V, BK=BK, BV=BV, C=CHUNK, EXACT=_exact(r, k, v, dy), num_warps=4, num_stages=1,
        )  # fmt: skip
    return dr, dw, dk, dv, du.sum(0).to(u.dtype), ds0


def _walk(
    q: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    start: Tensor,
    more: Tensor | None,
    y: Tensor,
    end: Tensor,
    table: ChunkTable,
    back: bool,
    keep: int,
) -> Tensor:
    """Fill y and `end`, backwards where `back`; returns the states where they are to be kept or were needed."""
    n, H, K, V = table.sequences, q.shape[2], q.shape[3], v.shape[3]
    exact, tight = _exact(q, k, v), shared_memory() < 200_000
    BK, BV = _sizes(K, V)
    slow = exact or BK > 64  # too much at once for the registers
    split = slow or n * H * triton.cdiv(V, BV) < FEW
    stored = bool(keep or split)
    states = start.new_empty((table.chunks if stored else 0, H, V, K))
    rows = ROWS if split else BV
    launch(
        scan, n * H * triton.cdiv(V, rows),
        q, w, k, v, u, start, more, y, end, states, table.starts, table.first, table.tokens, H,
        K=K, V=V, BK=BK, BV=rows, C=CHUNK, BACK=back, OUTPUT=not split, KEEP=stored, EXACT=exact,
        num_warps=4, num_stages=1 if tight or slow else 3 if split else 2,
    )  # fmt: skip
    if split:
        rows = ROWS if exact and BK > 64 else BV
        launch(
            output, table.chunks * H * triton.cdiv(V, rows),
            q, w, k, v, u, y, states, table.starts, table.tokens, H,
            K=K, V=V, BK=BK, BV=rows, C=CHUNK, BACK=back, EXACT=exact, num_warps=4, num_stages=1,
        )  # fmt: skip
    return states


def _sizes(K: int, V: int) -> tuple[int, int]:
    """Padded head size, and value rows of a program."""
    return max(16, triton.next_power_of_2(K)), min(64, max(16, triton.next_power_of_2(V)))


def _exact(*inputs: Tensor) -> bool:
    """Whether the products must be those of fp32: any input but the decay is."""
    return any(x.dtype is torch.float32 for x in inputs)
