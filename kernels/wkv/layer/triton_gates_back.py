"""Gradients of RWKV-7's gates in one Triton kernel, and of the per-head norm, bonus and gate in another."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.layer.launch import dot_type, overlapped, wait_for_inputs
from wkv.layer.triton_gates import raised, vector
from wkv.triton_launcher import launch


@triton.jit
def _load(pointer, on):
    return tl.load(pointer, mask=on, other=0.0).to(tl.float32)


@triton.jit
def _store(pointer, x, on):
    tl.store(pointer, x.to(pointer.dtype.element_ty), mask=on)


@triton.jit(do_not_specialize=["M"])
def _gates_back(
    k_ptr, v_ptr, first_ptr, act_ptr, up_ptr, vectors_ptr, w_ptr, dw_ptr, dk_ptr, dv_ptr, da_ptr, db_ptr,
    dk_out, dv_out, first_out, low_out, M,
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
    a0, v0 = vector(vectors_ptr, 1, cs, on, C), vector(vectors_ptr, 2, cs, on, C)
    k_k, k_a = vector(vectors_ptr, 3, cs, on, C), vector(vectors_ptr, 4, cs, on, C)
    wait_for_inputs(OVERLAP)
    at, there = rows[:, None] * C + cs[None, :], on_rows[:, None] & on[None, :]
    plane = M.to(tl.int64) * C

    open_ = _load(w_ptr + at, there) / -0.6065306597126334  # w = -exp(-1/2) open_, whose slope is w (1 - open_)
    _store(low_out + plane + at, _load(dw_ptr + at, there) * _load(w_ptr + at, there) * (1.0 - open_), there)
    rate = raised(act_ptr + RV + RW, up_ptr + (RV + RW) * C, rows, on_rows, cs, on, R, C, RA, DOT, STEP)
    rate = tl.sigmoid(rate + a0)
    k, dk, db = _load(k_ptr + at, there), _load(dk_ptr + at, there), _load(db_ptr + at, there)
    key = k * k_k
    size = tl.sqrt(tl.sum(key * key, axis=1, keep_dims=True))
    unit = key / tl.maximum(size, 1e-12)
    drate = db * unit + dk * k * k_a
    _store(low_out + 2 * plane + at, drate * rate * (1.0 - rate), there)
    dunit = db * rate - _load(da_ptr + at, there)
    dkey = (dunit - unit * tl.sum(dunit * unit, axis=1, keep_dims=True)) / tl.maximum(size, 1e-12)
    dkey = tl.where(size > 1e-12, dkey, 0.0)
    _store(dk_out + at, dkey * k_k + dk * (1.0 - k_a + rate * k_a), there)
    dv = _load(dv_ptr + at, there)
    if first_ptr is not None:
        share = tl.sigmoid(raised(act_ptr, up_ptr, rows, on_rows, cs, on, R, C, RV, DOT, STEP) + v0)
        apart = _load(first_ptr + at, there) - _load(v_ptr + at, there)
        _store(low_out + at, dv * apart * share * (1.0 - share), there)
        _store(first_out + at, dv * share, there)
        dv -= dv * share
    else:
        _store(low_out + at, tl.zeros_like(dv), there)
    _store(dv_out + at, dv, there)


def gates_back_triton(
    k: Tensor,
    v: Tensor,
    v_first: Tensor | None,
    act: Tensor,
    up: Tensor,
    vectors: Tensor,
    ranks: Sequence[int],
    K: int,
    w: Tensor,
    dw: Tensor,
    dk: Tensor,
    dv: Tensor,
    da: Tensor,
    db: Tensor,
    into: tuple[Tensor, Tensor],
    low: Tensor,
) -> Tensor | None:
    """`wkv.layer.back.gates_back` of contiguous tensors."""
    M, C = k.shape
    dv_first = None if v_first is None else torch.empty_like(v_first)
    RV, RW, RA, _ = ranks
    exact = k.dtype is torch.float32
    with torch.cuda.device_of(k):
        BM = 16 if M <= 128 or exact else 32
        launch(
            _gates_back, triton.cdiv(M, BM) * (C // K),
            k, v, v_first, act, up, vectors, w, dw, dk, dv, da, db, *into, dv_first, low, M, C=C, K=K,
            BK=max(16, triton.next_power_of_2(K)), BM=BM, RV=RV, RW=RW, RA=RA, R=len(up), DOT=dot_type(k),
            STEP=64 if exact else 128, num_warps=4, **overlapped(k),
        )  # fmt: skip
    return dv_first


@triton.jit(do_not_specialize=["M"])
def _read_out_back(
    y_ptr, r_ptr, k_ptr, v_ptr, g_ptr, vectors_ptr, dout_ptr, dy_ptr, dr_ptr, dk_ptr, dv_ptr, dg_ptr, M, eps,
    C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a (BM tokens, head)."""
    heads: tl.constexpr = C // K
    rows = (tl.program_id(0) // heads).to(tl.int64) * BM + tl.arange(0, BM)
    ks = tl.arange(0, BK)
    on, cs = ks < K, (tl.program_id(0) % heads) * K + ks
    r_k, weight = vector(vectors_ptr, 5, cs, on, C), vector(vectors_ptr, 6, cs, on, C)
    bias = vector(vectors_ptr, 7, cs, on, C)
    at, there = rows[:, None] * C + cs[None, :], (rows < M)[:, None] & on[None, :]
    wait_for_inputs(OVERLAP)
    y = _load(y_ptr + at, there)
    off = tl.where(on[None, :], y - tl.sum(y, axis=1, keep_dims=True) / K, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, axis=1, keep_dims=True) / K + eps)
    unit = off * scale
    r, k, v = _load(r_ptr + at, there), _load(k_ptr + at, there), _load(v_ptr + at, there)
    bonus = tl.sum(r * k * r_k, axis=1, keep_dims=True)
    dout = _load(dout_ptr + at, there)
    _store(dg_ptr + at, dout * (unit * weight + bias + bonus * v), there)
    dout = dout * _load(g_ptr + at, there)
    _store(dv_ptr + at, dout * bonus, there)
    dbonus = tl.sum(dout * v, axis=1, keep_dims=True) * r_k
    _store(dr_ptr + at, dbonus * k, there)
    _store(dk_ptr + at, dbonus * r, there)
    dunit = dout * weight
    dy = dunit - tl.sum(dunit, axis=1, keep_dims=True) / K
    dy -= unit * (tl.sum(dunit * unit, axis=1, keep_dims=True) / K)
    _store(dy_ptr + at, dy * scale, there)


def read_out_back_triton(
    y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor, vectors: Tensor, K: int, dout: Tensor, eps: float, dg: Tensor
) -> tuple[Tensor, ...]:
    """`wkv.layer.back.read_out_back` of contiguous tensors."""
    M, C = y.shape
    dy, dr, dk, dv = torch.empty((4, M, C), dtype=y.dtype, device=y.device).unbind(0)
    BM = 32
    with torch.cuda.device_of(y):
        launch(
            _read_out_back, triton.cdiv(M, BM) * (C // K),
            y, r, k, v, g, vectors, dout, dy, dr, dk, dv, dg, M, eps, C=C, K=K, BK=max(16, triton.next_power_of_2(K)),
            BM=BM, num_warps=4, **overlapped(y),
        )  # fmt: skip
    return dy, dr, dk, dv
