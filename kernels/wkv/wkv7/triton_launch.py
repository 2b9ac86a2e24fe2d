"""WKV-7 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.wkv7.triton_backward import gradients, scan_back
from wkv.wkv7.triton_scan import output, scan
from wkv.wkv7.triton_solve import solve


SPLIT = True


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, table: ChunkTable, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, s, states before every chunk [chunks,H,V,K], inverses [chunks,H,C,C]); the states are empty unless `keep`."""
    H, K, V = r.shape[2], r.shape[3], v.shape[3]
    n = table.sequences
    exact = any(x.dtype is torch.float32 for x in (r, k, v, a, b))
    inverse = r.new_empty((table.chunks, H, CHUNK, CHUNK), dtype=torch.float32 if exact else torch.float16)
    y = torch.empty_like(v)
    s = torch.empty_like(s0)
    split = SPLIT
    states = s0.new_empty((table.chunks if keep or split else 0, H, V, K))
    BK, BV = max(16, triton.next_power_of_2(K)), min(64, max(16, triton.next_power_of_2(V)))
    tiles = triton.cdiv(V, BV)
    with torch.cuda.device_of(r):
        solve[(table.chunks * H,)](
            w, a, b, inverse, table.starts, table.tokens, H, K=K, BK=BK, C=CHUNK, EXACT=exact, num_warps=4
        )
        scan[(n * H * tiles,)](
            r, w, k, v, a, b, inverse, s0, y, s, states, table.starts, table.first, table.tokens, H,
            K=K, V=V, BK=BK, BV=BV, C=CHUNK, OUTPUT=not split, KEEP=keep or split, EXACT=exact, num_warps=4,
        )  # fmt: skip
        if split:
            output[(table.chunks * H * tiles,)](
                r, w, k, v, a, b, inverse, y, states, table.starts, table.tokens, H,
                K=K, V=V, BK=BK, BV=BV, C=CHUNK, EXACT=exact, num_warps=4,
            )  # fmt: skip
    return y, s, states, inverse


def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    states: Tensor,
    inverse: Tensor,
    dy: Tensor,
    ds: Tensor,
    dstates: Tensor | None,
    table: ChunkTable,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dr, dw, dk, dv, da, db, ds0), from what `forward` kept and the gradients of y, of s and of the states."""
    H, K, V = r.shape[2], r.shape[3], v.shape[3]
    exact = inverse.dtype is torch.float32
    grads = [torch.empty_like(x) for x in (r, w, k, v, a, b)]
    ds0, after = torch.empty_like(ds), torch.empty_like(states)
    BK, BV = max(16, triton.next_power_of_2(K)), min(64, max(16, triton.next_power_of_2(V)))
    with torch.cuda.device_of(r):
        scan_back[(table.sequences * H * triton.cdiv(V, BV),)](
            r, w, a, b, inverse, dy, ds, dstates, ds0, after, table.starts, table.first, table.tokens, H,
            K=K, V=V, BK=BK, BV=BV, C=CHUNK, EXACT=exact, num_warps=4,
        )  # fmt: skip
        gradients[(table.chunks * H,)](
            r, w, k, v, a, b, inverse, states, after, dy, *grads, table.starts, table.tokens, H,
            K=K, V=V, BK=BK, BV=BV, C=CHUNK, EXACT=exact, num_warps=4,
        )  # fmt: skip
    return (*grads, ds0)
