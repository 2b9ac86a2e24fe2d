"""WKV-7 in Triton, token by token: a program walks all tokens of some value rows of one head, in registers."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.triton_launcher import launch
from wkv.triton_op import aligned, make_op, serial_arguments, serial_plan

# With so many (sequence, head) pairs a GPU is full, and what counts is work; with fewer it is the wait for each token.
MANY = 512


@triton.jit
def _parts(pointer, row, on, ks, K: tl.constexpr, P: tl.constexpr):
    """One token's [K] vector as it is stored (an upcast here would wait for it), in P parts; zeros unless `on`."""
    parts = ()
    for p in tl.static_range(P):
        at = p * ks.shape[0] + ks
        parts = parts + (tl.load(pointer + row * K + at, mask=on & (at < K), other=0.0),)  # noqa: RUF005
    return parts


@triton.jit
def _token(pointers, row, on, ks, vs, K: tl.constexpr, V: tl.constexpr, P: tl.constexpr):
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr = pointers
    r, w, k = _parts(r_ptr, row, on, ks, K, P), _parts(w_ptr, row, on, ks, K, P), _parts(k_ptr, row, on, ks, K, P)
    a, b = _parts(a_ptr, row, on, ks, K, P), _parts(b_ptr, row, on, ks, K, P)
    return r, w, k, tl.load(v_ptr + row * V + vs, mask=on & (vs < V), other=0.0), a, b


@triton.jit
def _times(s, x, P: tl.constexpr):
    """s x [BV] of a state in P parts."""
    total = s[0] * x[0].to(tl.float32)[None, :]
    for p in tl.static_range(1, P):
        total += s[p] * x[p].to(tl.float32)[None, :]
    return tl.sum(total, axis=1)


@triton.jit
def _store(pointer, s, vs, ks, K: tl.constexpr, V: tl.constexpr, P: tl.constexpr):
    for p in tl.static_range(P):
        at = p * ks.shape[0] + ks
        tl.store(pointer + vs[:, None] * K + at[None, :], s[p], mask=(vs < V)[:, None] & (at < K)[None, :])


@triton.jit(do_not_specialize=["T", "H", "every"])
def _forward(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, s0_ptr, y_ptr, s_ptr, cu_ptr, chunk_ptr, first_ptr, T, H, every,
    K: tl.constexpr, V: tl.constexpr, P: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """One program a (sequence n, head, BV rows); K lies in P parts of BK, each in a few neighbouring threads.

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
    at_s = (n * H + head) * (V * K)
    s = ()  # P of [BV,BK]
    for p in tl.static_range(P):
        at = p * BK + ks
        cells, inside = vs[:, None] * K + at[None, :], (vs < V)[:, None] & (at < K)[None, :]
        s = s + (tl.load(s0_ptr + at_s + cells, mask=inside, other=0.0),)  # noqa: RUF005
    if chunk_ptr is not None:
        first = n * ((T + every - 1) // every)
        if cu_ptr is not None:
            first = tl.load(first_ptr + n)
        chunk_ptr += (first * H + head) * (V * K)

    pointers = (r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr)
    row = begin * H + head  # of token t, in [N*T*H,K] and [N*T*H,V]
    token = _token(pointers, row, AHEAD & (tokens > 0), ks, vs, K, V, P)
    for t in range(tokens):
        if chunk_ptr is not None:  # noqa: SIM102  (known when compiling, unlike the other)
            if t % every == 0:
                _store(chunk_ptr, s, vs, ks, K, V, P)
                chunk_ptr += H * (V * K)
        if AHEAD:  # the loads of the next token are under way while this one is computed
            r, w, k, v, a, b = token
            token = _token(pointers, row + H, t + 1 < tokens, ks, vs, K, V, P)
        else:
            r, w, k, v, a, b = _token(pointers, row, True, ks, vs, K, V, P)
        v, read = v.to(tl.float32), _times(s, a, P)  # [BV]
        after = ()
        for p in tl.static_range(P):
            decay, key, back = tl.exp(w[p].to(tl.float32)), k[p].to(tl.float32), b[p].to(tl.float32)  # [BK]
            new = s[p] * decay[None, :] + read[:, None] * back[None, :] + v[:, None] * key[None, :]
            after = after + (new,)  # noqa: RUF005
        s = after
        tl.store(y_ptr + row * V + vs, _times(s, r, P).to(y_ptr.dtype.element_ty), mask=vs < V)
        row += H
    _store(s_ptr + at_s, s, vs, ks, K, V, P)


def _tiles(heads: int, K: int, V: int) -> dict[str, int]:
    """Parts of K, their width, value rows and warps of a program, and whether it loads a token ahead.

    With many heads a thread holds eight keys of a row, so that few of them share a sum, and other programs fill the
    wait for the loads; with few heads a [K] vector has fewer elements than the program has threads, and Triton loads it
    straight in the layout of the state.
    """
    width, rows = max(16, triton.next_power_of_2(K)), triton.next_power_of_2(V)
    if heads < MANY:
        return {"P": 1, "BK": width, "BV": min(32, rows), "AHEAD": True, "num_warps": width // 16}
    parts = min(2, width // 16)
    return {"P": parts, "BK": width // parts, "BV": min(64, rows), "AHEAD": False, "num_warps": max(1, width // 32)}


def wkv7_serial(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    s0: Tensor,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    chunk_states: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`wkv.wkv7` of checked 16-bit or fp32 inputs and an fp32 s0, computed in fp32; not differentiable.

    Returns y (in the dtype of v), the final state and the states before every `chunk_states`-th token of each sequence:
    [B,ceil(T/n),H,V,K], or with `cu_seqlens` [1,sum of ceil(T_i/n),H,V,K], one sequence after the other.
    """
    cu, first, count = serial_plan(r, cu_seqlens, chunk_states)
    y, s, chunks = _SERIAL(r, w, k, v, a, b, s0, cu, first, chunk_states or 0, count)
    return y, s, chunks if chunk_states else None


def _run(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *xs, cu, first, every, count = args
    r, w, k, v, a, b, s0 = (aligned(x) for x in xs)
    y, s, chunks = _fake(r, w, k, v, a, b, s0, cu, first, every, count)
    N, T, H, K, V = s0.shape[0], r.shape[1], r.shape[2], r.shape[3], v.shape[3]
    tiles = _tiles(N * H, K, V)
    with torch.cuda.device_of(r):
        launch(
            _forward, N * H * triton.cdiv(V, tiles["BV"]),
            r, w, k, v, a, b, s0, y, s, cu, chunks if every else None, first, T, H, every, K=K, V=V, **tiles
        )  # fmt: skip
    return y, s, chunks


def _fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    r, v, s0 = args[0], args[3], args[6]
    *_, every, count = args
    chunks = (r.shape[0], count, *s0.shape[1:]) if every else (0,)
    return v.new_empty(v.shape), s0.new_empty(s0.shape), s0.new_empty(chunks)


_SERIAL = make_op("wkv7_serial", serial_arguments("rwkvab"), 3, _run, _fake)
