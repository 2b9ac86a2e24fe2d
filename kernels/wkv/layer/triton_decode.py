"""One token through an RWKV-7 head in one Triton kernel: the state in place, then per-head norm, bonus and gate."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.layer.launch import overlapped, wait_for_inputs
from wkv.layer.triton_gates import at_unit_length, log_decay
from wkv.triton_launcher import launch


@triton.jit
def _finish(y, r, k, v, g, vectors_ptr, cs, on, eps, C: tl.constexpr, K: tl.constexpr):
    """Per-head norm of y [BM,BK], the bonus of the present token, and the gate."""
    r_k = tl.load(vectors_ptr + 5 * C + cs, mask=on, other=0.0).to(tl.float32)[None, :]
    weight = tl.load(vectors_ptr + 6 * C + cs, mask=on, other=0.0).to(tl.float32)[None, :]
    bias = tl.load(vectors_ptr + 7 * C + cs, mask=on, other=0.0).to(tl.float32)[None, :]
    off = tl.where(on[None, :], y - (tl.sum(y, axis=1) / K)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, axis=1) / K + eps)
    bonus = tl.sum(r * k * r_k, axis=1)
    return (off * scale[:, None] * weight + bias + bonus[:, None] * v) * g


@triton.jit
def _token(s, r, w, k, v, a, b):
    """The state [BV,BK] one token on, and what it reads out, [BV]; v is [BV], the others [BK]."""
    read = tl.sum(s * a[None, :], axis=1)
    s = s * tl.exp(w)[None, :] + read[:, None] * b[None, :] + v[:, None] * k[None, :]
    return s, tl.sum(s * r[None, :], axis=1)


@triton.jit
def _load(pointer, on):
    return tl.load(pointer, mask=on, other=0.0).to(tl.float32)


@triton.jit
def _decode(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, g_ptr, s_ptr, vectors_ptr, out_ptr, eps,
    C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a (row of the batch, head)."""
    heads: tl.constexpr = C // K
    program = tl.program_id(0).to(tl.int64)
    ks = tl.arange(0, BK)
    on = ks < K
    cells = ks[:, None] * K + ks[None, :]
    both = on[:, None] & on[None, :]
    s_ptr += program * (K * K)
    # written in an earlier pass, and every pass begins with a kernel that waits for all before it
    s = tl.load(s_ptr + cells, mask=both, other=0.0)
    wait_for_inputs(OVERLAP)
    at, cs = program * K + ks, (program % heads) * K + ks
    r, w, k = _load(r_ptr + at, on), _load(w_ptr + at, on), _load(k_ptr + at, on)
    v, a, b, g = _load(v_ptr + at, on), _load(a_ptr + at, on), _load(b_ptr + at, on), _load(g_ptr + at, on)
    s, y = _token(s, r, w, k, v, a, b)
    tl.store(s_ptr + cells, s, mask=both)
    out = _finish(y[None, :], r[None, :], k[None, :], v[None, :], g[None, :], vectors_ptr, cs, on, eps, C, K)
    tl.store(out_ptr + at[None, :], out.to(out_ptr.dtype.element_ty), mask=on[None, :])


def decode_triton(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor, s: Tensor, vectors: Tensor, eps: float
) -> Tensor:
    """`wkv.layer.decode` of contiguous tensors."""
    B, H, _, K = s.shape
    out = torch.empty((B, H * K), dtype=v.dtype, device=v.device)
    with torch.cuda.device_of(s):
        launch(
            _decode, B * H,
            r, w, k, v, a, b, g, s, vectors, out, eps, C=H * K, K=K,
            BK=max(16, triton.next_power_of_2(K)), num_warps=4, **overlapped(s),
        )  # fmt: skip
    return out


@triton.jit
def _high(up_ptr, cs, on, C: tl.constexpr, RANK: tl.constexpr, BR: tl.constexpr):
    """The columns cs of a low-rank map upwards, [BR,BK]."""
    ranks = tl.arange(0, BR)
    return tl.load(up_ptr + ranks[:, None] * C + cs[None, :], mask=(ranks < RANK)[:, None] & on[None, :], other=0.0)


@triton.jit
def _low(act_ptr, high, RANK: tl.constexpr, BR: tl.constexpr):
    """act [RANK] of one token times such columns, [BK]."""
    ranks = tl.arange(0, BR)
    act = tl.load(act_ptr + ranks, mask=ranks < RANK, other=0.0).to(tl.float32)
    return tl.sum(high.to(tl.float32) * act[:, None], axis=0)


@triton.jit
def _decode_one(
    rows_ptr, first_ptr, up_ptr, s_ptr, vectors_ptr, out_ptr, eps, C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr,
    RV: tl.constexpr, RW: tl.constexpr, RA: tl.constexpr, RG: tl.constexpr,
    BV: tl.constexpr, BW: tl.constexpr, BA: tl.constexpr, BG: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a (row of the batch, head): the gates too, from what `gemv` gave of r, k, v and the low-rank maps."""
    heads: tl.constexpr = C // K
    R: tl.constexpr = RV + RW + RA + RG
    program = tl.program_id(0).to(tl.int64)
    ks = tl.arange(0, BK)
    on = ks < K
    cs = (program % heads) * K + ks
    cells = ks[:, None] * K + ks[None, :]
    both = on[:, None] & on[None, :]
    s_ptr += program * (K * K)
    rows_ptr += program // heads * (3 * C + R)
    act_ptr = rows_ptr + 3 * C
    w0, a0, v0 = (_load(vectors_ptr + cs, on), _load(vectors_ptr + C + cs, on), _load(vectors_ptr + 2 * C + cs, on))
    k_k, k_a = _load(vectors_ptr + 3 * C + cs, on), _load(vectors_ptr + 4 * C + cs, on)
    high_w = _high(up_ptr + RV * C, cs, on, C, RW, BW)
    high_a = _high(up_ptr + (RV + RW) * C, cs, on, C, RA, BA)
    high_g = _high(up_ptr + (RV + RW + RA) * C, cs, on, C, RG, BG)
    high_v = _high(up_ptr, cs, on, C, RV, BV)
    s = tl.load(s_ptr + cells, mask=both, other=0.0)  # as in `_decode`
    wait_for_inputs(OVERLAP)
    r, k, v = _load(rows_ptr + cs, on), _load(rows_ptr + C + cs, on), _load(rows_ptr + 2 * C + cs, on)
    w = log_decay(_low(act_ptr + RV, high_w, RW, BW) + w0)
    rate = tl.sigmoid(_low(act_ptr + RV + RW, high_a, RA, BA) + a0)
    g = _low(act_ptr + RV + RW + RA, high_g, RG, BG)
    if first_ptr is not None:
        share = tl.sigmoid(_low(act_ptr, high_v, RV, BV) + v0)
        first = _load(first_ptr + program // heads * (3 * C + R) + cs, on)
        v += (first - v) * share
    kk = at_unit_length(k * k_k, 0)
    k = k * (1.0 - k_a + rate * k_a)
    s, y = _token(s, r, w, k, v, -kk, kk * rate)
    tl.store(s_ptr + cells, s, mask=both)
    out = _finish(y[None, :], r[None, :], k[None, :], v[None, :], g[None, :], vectors_ptr, cs, on, eps, C, K)
    tl.store(out_ptr + program * K + ks[None, :], out.to(out_ptr.dtype.element_ty), mask=on[None, :])


def decode_one_triton(
    rows: Tensor, v_first: Tensor | None, up: Tensor, s: Tensor, vectors: Tensor, ranks: Sequence[int], eps: float
) -> Tensor:
    """`wkv.layer.decode_one`; v_first is a view of layer 0's rows at 2C."""
    B, H, _, K = s.shape
    out = torch.empty((B, H * K), dtype=rows.dtype, device=rows.device)
    RV, RW, RA, RG = ranks
    BV, BW, BA, BG = (triton.next_power_of_2(rank) for rank in ranks)
    with torch.cuda.device_of(s):
        launch(
            _decode_one, B * H,
            rows, v_first, up, s, vectors, out, eps, C=H * K, K=K, BK=max(16, triton.next_power_of_2(K)),
            RV=RV, RW=RW, RA=RA, RG=RG, BV=BV, BW=BW, BA=BA, BG=BG, num_warps=8, **overlapped(s),
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["M"])
def _read_out(
    y_ptr, r_ptr, k_ptr, v_ptr, g_ptr, vectors_ptr, out_ptr, M, eps,
    C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program a (BM tokens, head)."""
    heads: tl.constexpr = C // K
    rows = (tl.program_id(0) // heads).to(tl.int64) * BM + tl.arange(0, BM)
    ks = tl.arange(0, BK)
    on, cs = ks < K, (tl.program_id(0) % heads) * K + ks
    at, there = rows[:, None] * C + cs[None, :], (rows < M)[:, None] & on[None, :]
    wait_for_inputs(OVERLAP)
    y, r, k = _load(y_ptr + at, there), _load(r_ptr + at, there), _load(k_ptr + at, there)
    v, g = _load(v_ptr + at, there), _load(g_ptr + at, there)
    out = _finish(y, r, k, v, g, vectors_ptr, cs, on, eps, C, K)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=there)


def read_out_triton(
    y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor, vectors: Tensor, K: int, eps: float
) -> Tensor:
    """`wkv.layer.read_out` of contiguous tensors."""
    M, C = y.shape
    out = torch.empty_like(y)
    BM = 32
    with torch.cuda.device_of(y):
        launch(
            _read_out, triton.cdiv(M, BM) * (C // K),
            y, r, k, v, g, vectors, out, M, eps, C=C, K=K, BK=max(16, triton.next_power_of_2(K)), BM=BM,
            num_warps=4, **overlapped(y),
        )  # fmt: skip
    return out
