"""LayerNorm, token shift and the mixes of both in one Triton kernel; and the squared ReLU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.layer.launch import overlapped, wait_for_inputs
from wkv.triton_launcher import launch


@triton.jit
def _normed(x_ptr, weight, bias, cs, on, eps, C: tl.constexpr):
    """LayerNorm of one row [BC], rounded to the dtype of x as the state keeps it."""
    x = tl.load(x_ptr + cs, mask=on, other=0.0)
    wide = x.to(tl.float32)
    mean = tl.sum(wide, axis=0) / C
    off = tl.where(on, wide - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, axis=0) / C + eps)
    return (off * scale * weight + bias).to(x_ptr.dtype.element_ty).to(tl.float32)


@triton.jit(do_not_specialize=["T", "rows"])
def _mix(
    x_ptr, previous_ptr, weight_ptr, bias_ptr, mix_ptr, out_ptr, last_ptr, T, rows, eps,
    C: tl.constexpr, BC: tl.constexpr, N: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a token: its z and that of the token before, and N mixes of the two."""
    row = tl.program_id(0).to(tl.int64)
    text, t = row // T, row % T
    cs = tl.arange(0, BC)
    on = cs < C
    weight = tl.load(weight_ptr + cs, mask=on, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cs, mask=on, other=0.0).to(tl.float32)
    # written in an earlier pass, and every pass begins with a kernel that waits for all before it
    before = tl.load(previous_ptr + text * C + cs, mask=on & (t == 0), other=0.0).to(tl.float32)
    wait_for_inputs(OVERLAP)
    z = _normed(x_ptr + row * C, weight, bias, cs, on, eps, C)
    if t > 0:
        before = _normed(x_ptr + (row - 1) * C, weight, bias, cs, on, eps, C)
    for n in tl.static_range(N):
        share = tl.load(mix_ptr + n * C + cs, mask=on, other=0.0).to(tl.float32)
        mixed = z + (before - z) * share
        tl.store(out_ptr + (n * rows + row) * C + cs, mixed.to(out_ptr.dtype.element_ty), mask=on)
    if t == T - 1:
        # with one token `last` may be `previous` itself: all of it has been read by now
        tl.debug_barrier()
        tl.store(last_ptr + text * C + cs, z.to(last_ptr.dtype.element_ty), mask=on)


def norm_mix_triton(
    x: Tensor, previous: Tensor, weight: Tensor, bias: Tensor, mix: Tensor, eps: float, in_place: bool = False
) -> tuple[Tensor, Tensor]:
    """`wkv.layer.norm_mix`; in_place (one token only): `previous` itself becomes the last z."""
    B, T, C = x.shape
    out = torch.empty((len(mix), B, T, C), dtype=x.dtype, device=x.device)
    last = previous if in_place and T == 1 else torch.empty_like(previous)
    BC = triton.next_power_of_2(C)
    with torch.cuda.device_of(x):
        launch(
            _mix, B * T,
            x, previous, weight, bias, mix, out, last, T, B * T, eps,
            C=C, BC=BC, N=len(mix), num_warps=min(8, max(1, BC // 256)), **overlapped(x),
        )  # fmt: skip
    return out, last


@triton.jit
def _square(x_ptr, C: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """One program BLOCK columns of a row: a bound that is known when compiling lets it move 16 bytes at once."""
    tiles: tl.constexpr = (C + BLOCK - 1) // BLOCK
    cs = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    x_ptr += (tl.program_id(0) // tiles).to(tl.int64) * C
    wait_for_inputs(OVERLAP)
    x = tl.maximum(tl.load(x_ptr + cs, mask=cs < C, other=0.0).to(tl.float32), 0.0)
    tl.store(x_ptr + cs, (x * x).to(x_ptr.dtype.element_ty), mask=cs < C)


def squared_relu_triton(x: Tensor) -> Tensor:
    """`wkv.layer.squared_relu_` of a contiguous x [M,C]."""
    M, C = x.shape
    with torch.cuda.device_of(x):
        launch(_square, M * triton.cdiv(C, 2048), x, C=C, BLOCK=2048, num_warps=8, **overlapped(x))
    return x
