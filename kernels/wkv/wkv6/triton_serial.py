"""WKV-6 in Triton, token by token: a program walks all tokens of some value rows of one head, in registers."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.triton_launcher import launch
from wkv.triton_op import aligned, make_op, serial_arguments, serial_plan

# Value rows of a program, at most. With BK / 16 warps a [K] vector has fewer elements than the program has threads, and
# Triton then loads it straight in the layout of the state: no shared memory between a load and its use.
ROWS = 32


@triton.jit
def _token(pointers, row, on, ks, vs, K: tl.constexpr, V: tl.constexpr):
    """One token's inputs as they are stored (an upcast here would wait for the loads); zeros unless `on`."""
    r_ptr, w_ptr, k_ptr, v_ptr = pointers
    at_k, at_v = row * K + ks, row * V + vs
    on_k, on_v = on & (ks < K), on & (vs < V)
    r = tl.load(r_ptr + at_k, mask=on_k, other=0.0)
    w = tl.load(w_ptr + at_k, mask=on_k, other=0.0)
    k = tl.load(k_ptr + at_k, mask=on_k, other=0.0)
    v = tl.load(v_ptr + at_v, mask=on_v, other=0.0)
    return r, w, k, v


@triton.jit(do_not_specialize=["T", "H", "every"])
def _forward(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, s0_ptr, y_ptr, s_ptr, cu_ptr, chunk_ptr, first_ptr, T, H, every,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One program a (sequence n, head, BV rows).

    Without `cu` every sequence has T tokens; with it, its tokens are cu[n] to cu[n + 1] and its chunk states begin at
    first[n].
    """
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    head = (program // tiles) % H
    n = (program // tiles // H).to(tl.int64)
    begin, tokens = n * T, T
    if cu_ptr is not None:
        begin = tl.load(cu_ptr + n).to(tl.int64)
        tokens = (tl.load(cu_ptr + n + 1) - begin).to(tl.int32)

    ks = tl.arange(0, BK)
    vs = (program % tiles) * BV + tl.arange(0, BV)
    in_k, in_v = ks < K, vs < V
    cells, in_s = vs[:, None] * K + ks[None, :], in_v[:, None] & in_k[None, :]
    at_s = (n * H + head) * (V * K)
    s = tl.load(s0_ptr + at_s + cells, mask=in_s, other=0.0)  # [BV,BK]
    if chunk_ptr is not None:
        first = n * ((T + every - 1) // every)
        if cu_ptr is not None:
            first = tl.load(first_ptr + n)
        chunk_ptr += (first * H + head) * (V * K)

    u = tl.load(u_ptr + head * K + ks, mask=in_k, other=0.0).to(tl.float32)  # [BK]
    pointers = (r_ptr, w_ptr, k_ptr, v_ptr)
    row = begin * H + head  # of token t, in [N*T*H,K] and [N*T*H,V]
    token = _token(pointers, row, tokens > 0, ks, vs, K, V)
    for t in range(tokens):
        if chunk_ptr is not None:  # noqa: SIM102  (known when compiling, unlike the other)
            if t % every == 0:
                tl.store(chunk_ptr + cells, s, mask=in_s)
                chunk_ptr += H * (V * K)
        r, w, k, v = token
        r, w, k, v = r.to(tl.float32), w.to(tl.float32), k.to(tl.float32), v.to(tl.float32)
        # the loads of the next token are under way while this one is computed
        token = _token(pointers, row + H, t + 1 < tokens, ks, vs, K, V)
        y = tl.sum((s + v[:, None] * (u * k)[None, :]) * r[None, :], axis=1)  # [BV]
        s = s * tl.exp(w)[None, :] + v[:, None] * k[None, :]
        tl.store(y_ptr + row * V + vs, y.to(y_ptr.dtype.element_ty), mask=in_v)
        row += H
    tl.store(s_ptr + at_s + cells, s, mask=in_s)


def wkv6_serial(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    s0: Tensor,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    chunk_states: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`wkv.wkv6` of checked 16-bit or fp32 inputs and an fp32 s0, computed in fp32; not differentiable.

    Returns y (in the dtype of v), the final state and the states before every `chunk_states`-th token of each sequence:
    [B,ceil(T/n),H,V,K], or with `cu_seqlens` [1,sum of ceil(T_i/n),H,V,K], one sequence after the other.
    """
    cu, first, count = serial_plan(r, cu_seqlens, chunk_states)
    y, s, chunks = _SERIAL(r, w, k, v, u, s0, cu, first, chunk_states or 0, count)
    return y, s, chunks if chunk_states else None


def _run(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *xs, cu, first, every, count = args
    r, w, k, v, u, s0 = (aligned(x) for x in xs)
    y, s, chunks = _fake(r, w, k, v, u, s0, cu, first, every, count)
    N, T, H, K, V = s0.shape[0], r.shape[1], r.shape[2], r.shape[3], v.shape[3]
    BK, BV = max(16, triton.next_power_of_2(K)), min(ROWS, triton.next_power_of_2(V))
    programs = N * H * triton.cdiv(V, BV)
    with torch.cuda.device_of(r):
        launch(
            _forward, programs,
            r, w, k, v, u, s0, y, s, cu, chunks if every else None, first, T, H, every,
            K=K, V=V, BK=BK, BV=BV, num_warps=BK // 16,
        )  # fmt: skip
    return y, s, chunks


def _fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    r, v, s0 = args[0], args[3], args[5]
    *_, every, count = args
    chunks = (r.shape[0], count, *s0.shape[1:]) if every else (0,)
    return v.new_empty(v.shape), s0.new_empty(s0.shape), s0.new_empty(chunks)


_SERIAL = make_op("wkv6_serial", serial_arguments("rwkvu"), 3, _run, _fake)
