"""Products that cuBLAS does not do well, in Triton: one token times a matrix, and the narrow low-rank maps of many."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.layer.launch import dot_type, overlapped, wait_for_inputs
from wkv.triton_launcher import launch


@triton.jit
def _activated(y, group):
    """What the low-rank maps v w a g (3 to 6 behind r k v) do to their rank: w goes through tanh, g through sigmoid."""
    if group == 4:
        y = 2.0 * tl.sigmoid(2.0 * y) - 1.0
    if group == 6:
        y = tl.sigmoid(y)
    return y


@triton.jit
def _sloped(dy, y, group):
    """The gradient before what gave y, from that behind it."""
    if group == 4:
        dy *= 1.0 - y * y
    if group == 6:
        dy *= y * (1.0 - y)
    return dy


@triton.jit(do_not_specialize=["N"])
def _gemv(
    x_ptr, weight_ptr, y_ptr, N, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    RANKS: tl.constexpr, RV: tl.constexpr, RW: tl.constexpr, RA: tl.constexpr,
    SQUARE: tl.constexpr, ADD: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program BN rows of the matrix; the first piece of it is on its way before the input is there."""
    first = tl.program_id(0) * BN
    ns, ks = first + tl.arange(0, BN), tl.arange(0, BK)
    rows = ns.to(tl.int64)[:, None] * K
    weight = tl.load(weight_ptr + rows + ks[None, :], mask=(ns < N)[:, None] & (ks < K)[None, :], other=0.0)
    group = 0
    if RANKS:
        for_v: tl.constexpr = 3 * K + RV
        group = (first >= K).to(tl.int32) + (first >= 2 * K).to(tl.int32) + (first >= 3 * K).to(tl.int32)
        group += (first >= for_v).to(tl.int32) + (first >= for_v + RW).to(tl.int32)
        group += (first >= for_v + RW + RA).to(tl.int32)
        x_ptr += tl.where(group < 3, group, group - 1) * K
    wait_for_inputs(OVERLAP)
    total = tl.zeros([BN, BK], tl.float32)
    for begin in tl.static_range(0, K, BK):
        x = tl.load(x_ptr + begin + ks, mask=begin + ks < K, other=0.0).to(tl.float32)
        now = weight
        if begin + BK < K:
            at = begin + BK + ks
            weight = tl.load(weight_ptr + rows + at[None, :], mask=(ns < N)[:, None] & (at < K)[None, :], other=0.0)
        total += now.to(tl.float32) * x[None, :]
    y = tl.sum(total, axis=1)
    if RANKS:
        y = _activated(y, group)
    if SQUARE:
        y = tl.maximum(y, 0.0)
        y = y * y
    if ADD:
        y += tl.load(y_ptr + ns, mask=ns < N, other=0.0).to(tl.float32)
    tl.store(y_ptr + ns, y.to(y_ptr.dtype.element_ty), mask=ns < N)


def gemv_triton(
    x: Tensor,
    weight: Tensor,
    *,
    ranks: Sequence[int] | None = None,
    square: bool = False,
    onto: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`wkv.layer.gemv` of contiguous tensors."""
    N, K = weight.shape
    y = torch.empty((1, N), dtype=dtype or x.dtype, device=x.device) if onto is None else onto
    RV, RW, RA = (ranks or (0, 0, 0))[:3]
    # measured on an H100: small programs, and larger ones where there would be too few rounds of them
    BN, BK, warps = (2, 1024, 2) if N * K > 2**23 else (4, 2048, 4)
    BK = min(BK, triton.next_power_of_2(K))
    with torch.cuda.device_of(x):
        launch(
            _gemv, triton.cdiv(N, BN),
            x, weight, y, N, K=K, BN=BN, BK=BK, RANKS=ranks is not None, RV=RV, RW=RW, RA=RA, SQUARE=square,
            ADD=onto is not None, num_warps=warps, **overlapped(x),
        )  # fmt: skip
    return y


@triton.jit(do_not_specialize=["M"])
def _down(
    x_ptr, weight_ptr, y_ptr, act_ptr, M, C: tl.constexpr, R: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BC: tl.constexpr, RV: tl.constexpr, RW: tl.constexpr, RA: tl.constexpr, FIRST: tl.constexpr, DOT: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program (BM tokens, BN of the ranks), which all belong to one map; the first of them reads x[FIRST]."""
    tiles: tl.constexpr = R // BN
    first = (tl.program_id(0) % tiles) * BN
    rows = (tl.program_id(0) // tiles).to(tl.int64) * BM + tl.arange(0, BM)
    ns, cs = first + tl.arange(0, BN), tl.arange(0, BC)
    group = (first >= RV).to(tl.int32) + (first >= RV + RW).to(tl.int32) + (first >= RV + RW + RA).to(tl.int32)
    x_ptr += (FIRST + group).to(tl.int64) * M * C
    wait_for_inputs(OVERLAP)
    total = tl.zeros([BM, BN], tl.float32)
    for begin in range(0, C, BC):
        on = begin + cs < C
        x = tl.load(x_ptr + rows[:, None] * C + begin + cs[None, :], mask=(rows < M)[:, None] & on[None, :], other=0.0)
        weight = tl.load(weight_ptr + ns[None, :] * C + begin + cs[:, None], mask=on[:, None], other=0.0)
        total += tl.dot(x.to(DOT), weight.to(DOT), input_precision="tf32x3")
    at, on_rows = rows[:, None] * R + ns[None, :], (rows < M)[:, None]
    if act_ptr is None:
        y = _activated(total, group + 3)
    else:
        y = _sloped(total, tl.load(act_ptr + at, mask=on_rows, other=0.0).to(tl.float32), group + 3)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=on_rows)


def lora_down_triton(mixed: Tensor, down: Tensor, ranks: Sequence[int]) -> Tensor:
    """`wkv.layer.lora_down` of contiguous tensors."""
    return _narrow(mixed, down, None, ranks, 2)


def lora_back_triton(dlow: Tensor, act: Tensor, up: Tensor, ranks: Sequence[int]) -> Tensor:
    """`wkv.layer.back.lora_back` of contiguous tensors."""
    return _narrow(dlow, up, act, ranks, 0)


def _narrow(x: Tensor, weight: Tensor, act: Tensor | None, ranks: Sequence[int], first: int) -> Tensor:
    """x[first:] times the weights [R,C] of the four maps, each its own: [M,R], and through what they do to their rank.

    With act [M,R] it is what they did: then a gradient goes back through it.
    """
    _, M, C = x.shape
    R = len(weight)
    y = torch.empty((M, R), dtype=x.dtype, device=x.device)
    narrow = M <= 1024 or x.dtype is torch.float32
    BM, BN = (16, 32) if M <= 64 else (64, 32) if narrow else (128, 64)
    RV, RW, RA = ranks[:3]
    stages = 4 if x.element_size() == 2 else 2  # at most 99 KiB of shared memory
    with torch.cuda.device_of(x):
        launch(
            _down, triton.cdiv(M, BM) * (R // BN),
            x, weight, y, act, M, C=C, R=R, BM=BM, BN=BN, BC=64, RV=RV, RW=RW, RA=RA, FIRST=first, DOT=dot_type(x),
            num_warps=4, num_stages=stages, **overlapped(x),
        )  # fmt: skip
    return y
