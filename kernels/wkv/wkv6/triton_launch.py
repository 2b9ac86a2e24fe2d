"""WKV-6 on Triton, launched: forward and backward of contiguous inputs on one device, without autograd."""

import torch
import triton
from torch import Tensor

from wkv.chunk_table import CHUNK, ChunkTable
from wkv.wkv6.triton_backward import gradients, scan_back
from wkv.wkv6.triton_scan import output, scan

# Below so many (sequence, head, tile) programs the outputs are computed apart from the walk over the states.
FEW = 128


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, s0: Tensor, table: ChunkTable, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, s, states before every chunk [chunks,H,V,K]); the states are empty unless `keep`."""
    n, H, K, V = table.sequences, r.shape[2], r.shape[3], v.shape[3]
    exact = _exact(r, k, v)
    y, s = torch.empty_like(v), torch.empty_like(s0)
    BK, BV = max(16, triton.next_power_of_2(K)), min(64, max(16, triton.next_power_of_2(V)))
    split = n * H * triton.cdiv(V, BV) < FEW
    states = s0.new_empty((table.chunks if keep or split else 0, H, V, K))
    rows = 16 if split else BV
    with torch.cuda.device_of(r):
        scan[(n * H * triton.cdiv(V, rows),)](
            r, w, k, v, u, s0, y, s, states, table.starts, table.first, table.tokens, H,
            K=K, V=V, BK=BK, BV=rows, C=CHUNK, OUTPUT=not split, KEEP=keep or split, EXACT=exact, num_warps=4,
        )  # fmt: skip
        if split:
            output[(table.chunks * H * triton.cdiv(V, BV),)](
                r, w, k, v, u, y, states, table.starts, table.tokens, H,
                K=K, V=V, BK=BK, BV=BV, C=CHUNK, EXACT=exact, num_warps=4,
            )  # fmt: skip
    return y, s, states


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
    n, H, K, V = table.sequences, r.shape[2], r.shape[3], v.shape[3]
    exact = _exact(r, k, v)
    grads = [torch.empty_like(x) for x in (r, w, k, v)]
    ds0, after = torch.empty_like(ds), torch.empty_like(states)
    du = ds.new_empty((table.chunks, H, K))  # each chunk's part
    BK, BV = max(16, triton.next_power_of_2(K)), min(64, max(16, triton.next_power_of_2(V)))
    rows = 16 if n * H * triton.cdiv(V, BV) < FEW else BV
    with torch.cuda.device_of(r):
        scan_back[(n * H * triton.cdiv(V, rows),)](
            r, w, dy, ds, dstates, ds0, after, table.starts, table.first, table.tokens, H,
            K=K, V=V, BK=BK, BV=rows, C=CHUNK, EXACT=exact, num_warps=4,
        )  # fmt: skip
        gradients[(table.chunks * H,)](
            r, w, k, v, u, states, after, dy, *grads, du, table.starts, table.tokens, H,
            K=K, V=V, BK=BK, BV=BV, C=CHUNK, EXACT=exact, num_warps=8,
        )  # fmt: skip
    return (*grads, du.sum(0).to(u.dtype), ds0)


def _exact(*inputs: Tensor) -> bool:
    """Whether the products must be those of fp32: any input but the decay is."""
    return any(x.dtype is torch.float32 for x in inputs)
