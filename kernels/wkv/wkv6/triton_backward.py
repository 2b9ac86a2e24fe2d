"""WKV-6 backward on Triton: the gradients of r, w, k and u, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
from wkv.triton_pieces import add_product, largest, load_rows, load_state, narrow, power_of_two, product, store_rows
from wkv.wkv6.triton_decay import halves, load_decay, pattern, reach, spread, tile, upper


@triton.jit
def _unit(largest_one, EXACT: tl.constexpr):
    """A power of two near the largest of a tensor, and its inverse; 1 where products are EXACT."""
    if EXACT:
        return tl.full((), 1.0, tl.float32), tl.full((), 1.0, tl.float32)
    else:  # noqa: RET505  (what follows a return is compiled too)
        return power_of_two(largest_one, EXACT)


@triton.jit
def _largest_of_tiles(
    v_ptr, states_ptr, begin, head, length, place, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The largest magnitudes of v and of the state, over all their value rows."""
    v_size, s_size = 0.0, 0.0
    for n in tl.static_range((V + BV - 1) // BV):
        v_size = tl.maximum(v_size, largest(load_rows(v_ptr, begin, head, length, H, C, V, BV, n * BV)))
        s_size = tl.maximum(s_size, largest(load_state(states_ptr, place, n * BV, K, V, BK, BV)))
    return v_size, s_size


@triton.jit
def _pull(r, k, w, both, weight, s: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """Through one level, from the mirrored gradient of the pairs: the gradients [C,BK] of its rows, and of log weight."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    own = tl.where(((t ^ i) & (C - s)) == s, both, 0.0).to(both.dtype)
    mine = tl.where(upper(s, C), r, k)
    gain = product(own, tile(r, k, weight, s, C, EXACT), EXACT) * weight
    return gain, gain * mine


@triton.jit(do_not_specialize=["T", "H"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, states_ptr, after_ptr, dy_ptr,
    dr_ptr, dw_ptr, dk_ptr, du_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of r, w and k of one (chunk, head) and its part of u's, from the states before and those after.

    Operands are in units near their largest value. Sums are in units of size = max(S, k v) for what is read, and of
    d_size = max(dS, r dy) for what reads: dr in size dy_size, dk in d_size v_size, dw and du in size d_size.
    """
    program = tl.program_id(0)
    chunk, head = (program // H).to(tl.int64), program % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = program.to(tl.int64)
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    high = upper(C // 2, C)
    log = load_decay(w_ptr, begin, head, length, H, C, K, BK)
    w = narrow(log, EXACT)
    lower_log, upper_log = halves(log, C)
    r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
    k = load_rows(k_ptr, begin, head, length, H, C, K, BK)
    r_size, r_inverse = _unit(largest(r), EXACT)
    k_size, k_inverse = _unit(largest(k), EXACT)
    r = spread(narrow(r * r_inverse, EXACT), BK, EXACT)
    k = spread(narrow(k * k_inverse, EXACT), BK, EXACT)
    v_size, s_size = _largest_of_tiles(v_ptr, states_ptr, begin, head, length, place, H, K, V, BK, BV, C)
    dy_size, ds_size = _largest_of_tiles(dy_ptr, after_ptr, begin, head, length, place, H, K, V, BK, BV, C)
    v_size, v_inverse = _unit(v_size, EXACT)
    s_size, s_inverse = _unit(s_size, EXACT)
    dy_size, dy_inverse = _unit(dy_size, EXACT)
    ds_size, ds_inverse = _unit(ds_size, EXACT)
    size, d_size = tl.maximum(s_size, k_size * v_size), tl.maximum(ds_size, r_size * dy_size)
    kv_part, s_part = k_size * v_size / size, s_size / size
    rdy_part, ds_part = r_size * dy_size / d_size, ds_size / d_size

    d_own = tl.zeros((C,), tl.float32)
    both = tl.zeros((C, C), tl.float32)
    mirror = tl.zeros((C, C), tl.float32)
    dr = tl.zeros((C, BK), tl.float32)
    dk = tl.zeros((C, BK), tl.float32)
    decay = tl.zeros((BK,), tl.float32)
    for n in tl.static_range((V + BV - 1) // BV):
        v = load_rows(v_ptr, begin, head, length, H, C, V, BV, n * BV) * v_inverse
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, n * BV) * dy_inverse
        d_own += tl.sum(v * dy, axis=1)
        v, dy = narrow(v, EXACT), narrow(dy, EXACT)
        both = add_product(both, dy, tl.trans(v), EXACT)
        mirror = add_product(mirror, v, tl.trans(dy), EXACT)
        s = load_state(states_ptr, place, n * BV, K, V, BK, BV) * s_inverse
        ds = load_state(after_ptr, place, n * BV, K, V, BK, BV) * ds_inverse
        decay += tl.sum(s * ds, axis=1)
        dr = add_product(dr, dy, tl.trans(narrow(s, EXACT)), EXACT)
        dk = add_product(dk, v, tl.trans(narrow(ds, EXACT)), EXACT)
    both = narrow(tl.where(t > i, both, mirror), EXACT)

    inner, outer = reach(w, C // 2, False, C, EXACT), reach(w, C // 2, True, C, EXACT)
    dr *= tl.where(high, inner * tl.exp(lower_log)[None, :], outer) * s_part
    dk *= tl.where(high, outer, inner * tl.exp(upper_log)[None, :]) * ds_part
    from_start, to_end = r * dr * rdy_part, k * dk * kv_part  # gradients of the log weights there and back
    gain, within = _pull(r, k, w, both, inner, C // 2, C, EXACT)
    dr += tl.where(high, gain, 0.0) * kv_part
    dk += tl.where(high, 0.0, gain) * rdy_part
    within = within * (kv_part * rdy_part) + tl.where(high, from_start, to_end)
    past = tl.sum(tl.where(high, from_start, 0.0), axis=0)  # what reads across the lower half
    ahead = tl.sum(tl.where(high, 0.0, to_end), axis=0)  # what is carried across the upper half
    dw = tl.where(high, ahead[None, :], past[None, :])
    dw += (decay * tl.exp(lower_log + upper_log) * (s_part * ds_part))[None, :]
    outside = narrow(tl.where(high, to_end, from_start), EXACT)
    dw = add_product(dw, tl.trans(pattern(C // 2, True, C, EXACT)), outside, EXACT)
    dw = add_product(dw, tl.trans(pattern(C // 2, False, C, EXACT)), narrow(within, EXACT), EXACT)
    for n in tl.static_range(1, 5):
        weight = reach(w, C >> n + 1, False, C, EXACT)
        gain, within = _pull(r, k, w, both, weight, C >> n + 1, C, EXACT)
        dr += tl.where(upper(C >> n + 1, C), gain, 0.0) * kv_part
        dk += tl.where(upper(C >> n + 1, C), 0.0, gain) * rdy_part
        within = narrow(within * (kv_part * rdy_part), EXACT)
        dw = add_product(dw, tl.trans(pattern(C >> n + 1, False, C, EXACT)), within, EXACT)
    store_rows(dw_ptr, dw * (size * d_size), begin, head, length, H, C, K, BK)

    own = tl.where((t ^ i) == 1, both, 0.0).to(both.dtype)
    gain = product(own, narrow(tl.where(upper(1, C), r, k), EXACT), EXACT)
    dr += tl.where(upper(1, C), gain, 0.0) * kv_part
    dk += tl.where(upper(1, C), 0.0, gain) * rdy_part
    ks = tl.arange(0, BK)
    u = tl.load(u_ptr + head * K + ks, mask=ks < K, other=0.0).to(tl.float32)[None, :]
    dr += (d_own * kv_part)[:, None] * k * u
    dk += (d_own * rdy_part)[:, None] * r * u
    store_rows(dr_ptr, dr * (size * dy_size), begin, head, length, H, C, K, BK)
    store_rows(dk_ptr, dk * (d_size * v_size), begin, head, length, H, C, K, BK)
    du = tl.sum((d_own * (kv_part * rdy_part))[:, None] * r.to(tl.float32) * k, axis=0)
    tl.store(du_ptr + place * K + ks, du * (size * d_size), mask=ks < K)
