"""RWKV-7's gates in one Triton kernel: low-rank maps upwards, decay, in-context rate, unit key, value residual."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.layer.launch import dot_type, overlapped, wait_for_inputs
from wkv.triton_launcher import launch


@triton.jit
def log_decay(x):
    """-exp(-1/2) sigmoid(x)."""
    return -0.6065306597126334 * tl.sigmoid(x)


@triton.jit
def at_unit_length(x, axis: tl.constexpr):
    """x over its norm along an axis, or over 1e-12 where that is larger; the axis is kept."""
    return x / tl.maximum(tl.sqrt(tl.sum(x * x, axis=axis, keep_dims=True)), 1e-12)


@triton.jit
def raised(
    act_ptr,
    up_ptr,
    rows,
    on_rows,
    cs,
    on,
    R: tl.constexpr,
    C: tl.constexpr,
    RANK: tl.constexpr,
    DOT: tl.constexpr,
    STEP: tl.constexpr,
):
    """act [BM,RANK] times up [RANK,BK] in fp32; RANK and STEP are multiples of 64."""
    total = tl.zeros([rows.shape[0], cs.shape[0]], tl.float32)
    step: tl.constexpr = STEP if RANK % STEP == 0 else 64
    for first in tl.static_range(0, RANK, step):
        ranks = first + tl.arange(0, step)
        low = tl.load(act_ptr + rows[:, None] * R + ranks[None, :], mask=on_rows[:, None], other=0.0)
        high = tl.load(up_ptr + ranks[:, None] * C + cs[None, :], mask=on[None, :], other=0.0)
        total = tl.dot(low.to(DOT), high.to(DOT), acc=total, input_precision="tf32x3")
    return total


@triton.jit
def vector(vectors_ptr, which: tl.constexpr, cs, on, C: tl.constexpr):
    """One of `vectors` at the columns of a head, [1,BK] in fp32."""
    return tl.load(vectors_ptr + which * C + cs, mask=on, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=["M"])
def _gates(
    k_ptr, v_ptr, first_ptr, act_ptr, up_ptr, vectors_ptr, w_out, k_out, v_out, a_out, b_out, M,
    C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr,
    RV: tl.constexpr, RW: tl.constexpr, RA: tl.constexpr, R: tl.constexpr, DOT: tl.constexpr, STEP: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a (BM tokens, head)."""
    heads: tl.constexpr = C // K
    head = tl.program_id(0) % heads
    rows = (tl.program_id(0) // heads).to(tl.int64) * BM + tl.arange(0, BM)
    ks = tl.arange(0, BK)
    on, on_rows, cs = ks < K, rows < M, head * K + ks
    w0, a0 = vector(vectors_ptr, 0, cs, on, C), vector(vectors_ptr, 1, cs, on, C)
    k_k, k_a = vector(vectors_ptr, 3, cs, on, C), vector(vectors_ptr, 4, cs, on, C)
    wait_for_inputs(OVERLAP)
    at, there = rows[:, None] * C + cs[None, :], on_rows[:, None] & on[None, :]

    decay = raised(act_ptr + RV, up_ptr + RV * C, rows, on_rows, cs, on, R, C, RW, DOT, STEP)
    tl.store(w_out + at, log_decay(decay + w0), mask=there)
    rate = raised(act_ptr + RV + RW, up_ptr + (RV + RW) * C, rows, on_rows, cs, on, R, C, RA, DOT, STEP)
    rate = tl.sigmoid(rate + a0)
    k = tl.load(k_ptr + at, mask=there, other=0.0).to(tl.float32)
    kk = at_unit_length(k * k_k, 1)
    dtype = k_out.dtype.element_ty
    tl.store(a_out + at, (-kk).to(dtype), mask=there)
    tl.store(b_out + at, (kk * rate).to(dtype), mask=there)
    tl.store(k_out + at, (k * (1.0 - k_a + rate * k_a)).to(dtype), mask=there)
    if first_ptr is not None:
        share = raised(act_ptr, up_ptr, rows, on_rows, cs, on, R, C, RV, DOT, STEP)
        share = tl.sigmoid(share + vector(vectors_ptr, 2, cs, on, C))
        v = tl.load(v_ptr + at, mask=there, other=0.0).to(tl.float32)
        first = tl.load(first_ptr + at, mask=there, other=0.0).to(tl.float32)
        tl.store(v_out + at, (v + (first - v) * share).to(dtype), mask=there)


def gates_triton(
    k: Tensor, v: Tensor, v_first: Tensor | None, act: Tensor, up: Tensor, vectors: Tensor, ranks: Sequence[int], K: int
) -> tuple[Tensor, ...]:
    """`wkv.layer.gates` of contiguous tensors."""
    M, C = k.shape
    w = torch.empty((M, C), dtype=torch.float32, device=k.device)
    k_out, v_out, a, b = torch.empty((4, M, C), dtype=k.dtype, device=k.device).unbind(0)
    BM = 16 if M <= 128 else 32 if M <= 1024 or k.dtype is torch.float32 else 64
    RV, RW, RA, _ = ranks
    step = 64 if k.dtype is torch.float32 else 128
    g = act[:, -ranks[3] :] @ up[-ranks[3] :]
    with torch.cuda.device_of(k):
        launch(
            _gates, triton.cdiv(M, BM) * (C // K),
            k, v, v_first, act, up, vectors, w, k_out, v_out, a, b, M, C=C, K=K,
            BK=max(16, triton.next_power_of_2(K)), BM=BM, RV=RV, RW=RW, RA=RA, R=len(up), DOT=dot_type(k), STEP=step,
            num_warps=4, **overlapped(k),
        )  # fmt: skip
    return w, k_out, v if v_first is None else v_out, a, b, g
