"""WKV-7 decode step in Triton: one token for every row of a batch, the state updated in place."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.triton_launcher import launch
from wkv.triton_op import make_op

# Value rows of a program; BK / 16 warps share them, as in the forward kernel.
ROWS = 16


@triton.jit
def _load(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _step(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, s_ptr, y_ptr,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One program a (batch row, head, BV rows of the state)."""
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    head = (program // tiles).to(tl.int64)  # counted over the whole batch
    ks = tl.arange(0, BK)
    vs = (program % tiles) * BV + tl.arange(0, BV)
    in_k, in_v = ks < K, vs < V
    s_ptr += head * (V * K) + vs[:, None] * K + ks[None, :]
    in_s = in_v[:, None] & in_k[None, :]
    s = tl.load(s_ptr, mask=in_s, other=0.0)  # [BV,BK]
    at_k, at_v = head * K + ks, head * V + vs
    r, w, k = _load(r_ptr + at_k, in_k), _load(w_ptr + at_k, in_k), _load(k_ptr + at_k, in_k)  # [BK]
    a, b, v = _load(a_ptr + at_k, in_k), _load(b_ptr + at_k, in_k), _load(v_ptr + at_v, in_v)
    read = tl.sum(s * a[None, :], axis=1)  # [BV]
    s = s * tl.exp(w)[None, :] + read[:, None] * b[None, :] + v[:, None] * k[None, :]
    y = tl.sum(s * r[None, :], axis=1)  # [BV]
    tl.store(y_ptr + at_v, y.to(y_ptr.dtype.element_ty), mask=in_v)
    tl.store(s_ptr, s, mask=in_s)


def _run(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    B, H, V, K = s.shape
    r, w, k, v, a, b = (x.contiguous() for x in (r, w, k, v, a, b))
    y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    state = s.contiguous()
    BK = max(16, triton.next_power_of_2(K))
    with torch.cuda.device_of(s):
        launch(
            _step, B * H * triton.cdiv(V, ROWS),
            r, w, k, v, a, b, state, y, K=K, V=V, BK=BK, BV=ROWS, num_warps=BK // 16
        )  # fmt: skip
    if state is not s:
        s.copy_(state)
    return y


_STEP = make_op(
    "wkv7_step", [*(f"Tensor {x}" for x in "rwkvab"), "Tensor(a!) s"], 1, _run, lambda *xs: xs[3].new_empty(xs[3].shape)
)


def wkv7_step_triton(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """`wkv.wkv7_step` of checked 16-bit or fp32 inputs, in fp32: writes the new state into s and returns y like v."""
    return _STEP(r, w, k, v, a, b, s)
