"""Gradients of LayerNorm, token shift and mixes in one Triton kernel; and of the squared ReLU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.layer.launch import overlapped, wait_for_inputs
from wkv.triton_launcher import launch


@triton.jit(do_not_specialize=["T", "rows"])
def _mix_back(
    x_ptr, weight_ptr, mix_ptr, dmixed_ptr, dlast_ptr, onto_ptr, dx_ptr, dprevious_ptr, T, rows, eps,
    C: tl.constexpr, BC: tl.constexpr, N: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a token: its z stands in its own mixes and in those of the token behind it."""
    row = tl.program_id(0).to(tl.int64)
    text, t = row // T, row % T
    cs = tl.arange(0, BC)
    on = cs < C
    weight = tl.load(weight_ptr + cs, mask=on, other=0.0).to(tl.float32)
    wait_for_inputs(OVERLAP)
    dz, dprevious = tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
    for n in tl.static_range(N):
        share = tl.load(mix_ptr + n * C + cs, mask=on, other=0.0).to(tl.float32)
        at = dmixed_ptr + (n * rows + row) * C + cs
        now = tl.load(at, mask=on, other=0.0).to(tl.float32)
        behind = tl.load(at + C, mask=on & (t + 1 < T), other=0.0).to(tl.float32)
        dz += now - now * share + behind * share
        dprevious += now * share
    if dlast_ptr is not None:
        dz += tl.load(dlast_ptr + text * C + cs, mask=on & (t + 1 == T), other=0.0).to(tl.float32)
    tl.store(dprevious_ptr + text * C + cs, dprevious.to(dprevious_ptr.dtype.element_ty), mask=on & (t == 0))
    x = tl.load(x_ptr + row * C + cs, mask=on, other=0.0).to(tl.float32)
    off = tl.where(on, x - tl.sum(x, axis=0) / C, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, axis=0) / C + eps)
    unit, dunit = off * scale, dz * weight
    dx = scale * (dunit - tl.sum(dunit, axis=0) / C - unit * (tl.sum(dunit * unit, axis=0) / C))
    dx += tl.load(onto_ptr + row * C + cs, mask=on, other=0.0).to(tl.float32)
    tl.store(dx_ptr + row * C + cs, dx.to(dx_ptr.dtype.element_ty), mask=on)


def norm_mix_back_triton(
    x: Tensor, weight: Tensor, mix: Tensor, dmixed: Tensor, dlast: Tensor | None, onto: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """`wkv.layer.back.norm_mix_back` of contiguous tensors."""
    B, T, C = x.shape
    dx, dprevious = torch.empty_like(x), torch.empty((B, C), dtype=x.dtype, device=x.device)
    BC = triton.next_power_of_2(C)
    with torch.cuda.device_of(x):
        launch(
            _mix_back, B * T,
            x, weight, mix, dmixed, dlast, onto, dx, dprevious, T, B * T, eps,
            C=C, BC=BC, N=len(mix), num_warps=min(16, max(1, BC // 256)), **overlapped(x),
        )  # fmt: skip
    return dx, dprevious


@triton.jit
def _square_back(dh_ptr, x_ptr, C: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """One program BLOCK columns of a row: a bound that is known when compiling lets it move 16 bytes at once."""
    tiles: tl.constexpr = (C + BLOCK - 1) // BLOCK
    cs = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    at = (tl.program_id(0) // tiles).to(tl.int64) * C + cs
    wait_for_inputs(OVERLAP)
    x = tl.maximum(tl.load(x_ptr + at, mask=cs < C, other=0.0).to(tl.float32), 0.0)
    dx = 2.0 * x * tl.load(dh_ptr + at, mask=cs < C, other=0.0).to(tl.float32)
    tl.store(dh_ptr + at, dx.to(dh_ptr.dtype.element_ty), mask=cs < C)


def squared_relu_back_triton(dh: Tensor, x: Tensor) -> Tensor:
    """`wkv.layer.back.squared_relu_back_` of contiguous tensors."""
    M, C = x.shape
    with torch.cuda.device_of(x):
        launch(_square_back, M * triton.cdiv(C, 2048), dh, x, C=C, BLOCK=2048, num_warps=8, **overlapped(x))
    return dh
