"""WKV-6 backward on Triton: the gradients of r, w, k and u, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
from wkv.triton_pieces import add_product, largest, load_rows, narrow, power_of_two, product, settle, store_rows
from wkv.wkv6.triton_decay import (
    blocks,
    load_decay,
    pattern,
    pattern_of_blocks,
    reach_in_blocks,
    spread,
    triangle,
    upper,
    upper_of_blocks,
    weights,
)


@triton.jit
def _unit(largest_one, EXACT: tl.constexpr):
    """A power of two near the largest of a tensor; 1 where products are EXACT."""
    if EXACT:
        return tl.full((), 1.0, tl.float32)
    else:
        return power_of_two(largest_one, EXACT)[0]


@triton.jit
def _load_state(
    ptr, place, row, column, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr
):  # fmt: skip
    """Rows from `row` and columns from `column` of state number `place` of [N,V,K]: [BV,BK], zeros beyond."""
    vs, ks = row + tl.arange(0, BV)[:, None], column + tl.arange(0, BK)[None, :]
    return tl.load(ptr + place * (V * K) + vs * K + ks, mask=(vs < V) & (ks < K), other=0.0)


@triton.jit
def _largest_row(ptr, begin, head, length, H, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr):
    """max |x| of all V columns of a chunk."""
    most = 0.0
    for n in tl.static_range((V + BV - 1) // BV):
        most = tl.maximum(most, largest(load_rows(ptr, begin, head, length, H, C, V, BV, n * BV)))
    return most


@triton.jit
def _largest_state(
    ptr, place, column, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr
):  # fmt: skip
    """max |x| of BK columns of a state."""
    most = 0.0
    for n in tl.static_range((V + BV - 1) // BV):
        most = tl.maximum(most, largest(_load_state(ptr, place, n * BV, column, K, V, BK, BV)))
    return most


@triton.jit
def _far(r, k, both, weight, s: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """Through level s >= 16, from the mirrored gradient of the pairs: the gradients of its rows, and of log weight."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    mine = tl.where(upper(s, C), r, k)
    own = tl.where(((t ^ i) & (C - s)) == s, both, 0.0).to(both.dtype)
    gain = product(own, mine * narrow(weight, EXACT), EXACT) * weight
    return gain, gain * mine


@triton.jit
def _near(r, k, both, weight, s: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """The same of level s < 16, all [C/16,16,...]."""
    t, i = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    mine = tl.where(upper_of_blocks(s, C), r, k)
    own = tl.where(((t ^ i) & (16 - s)) == s, both, 0.0).to(both.dtype)
    gain = product(own, mine * narrow(weight, EXACT), EXACT) * weight
    return gain, gain * mine


@triton.jit(do_not_specialize=["T", "H"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, states_ptr, after_ptr, dy_ptr,
    dr_ptr, dw_ptr, dk_ptr, du_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of r, w and k of one (chunk, head) and its part of u's, from the states before and those after.

    Channels come BK at a time. Operands are in units near their largest value. Those of r and k are such that r dY has
    the unit of dS and k V that of S, or those have them; so all gradients of one input have one unit.
    """
    program = tl.program_id(0)
    chunk, head = program // H, program % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = program.to(tl.int64)
    v_size = _unit(_largest_row(v_ptr, begin, head, length, H, V, BV, C), EXACT)
    dy_size = _unit(_largest_row(dy_ptr, begin, head, length, H, V, BV, C), EXACT)
    d_own = tl.zeros((C,), tl.float32)
    far = tl.zeros((C, C), tl.float32)
    near = tl.zeros((C // 16, 16, 16), tl.float32)
    far_mirror = tl.zeros((C, C), tl.float32)
    near_mirror = tl.zeros((C // 16, 16, 16), tl.float32)
    for n in tl.static_range((V + BV - 1) // BV):
        v = load_rows(v_ptr, begin, head, length, H, C, V, BV, n * BV) * (1.0 / v_size)
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, n * BV) * (1.0 / dy_size)
        d_own += tl.sum(v * dy, axis=1)
        v, dy = narrow(v, EXACT), narrow(dy, EXACT)
        far = add_product(far, dy, tl.trans(v), EXACT)
        far_mirror = add_product(far_mirror, v, tl.trans(dy), EXACT)
        near = add_product(near, blocks(dy, C), blocks(v, C).permute(0, 2, 1), EXACT)
        near_mirror = add_product(near_mirror, blocks(v, C), blocks(dy, C).permute(0, 2, 1), EXACT)
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    far = narrow(tl.where(t > i, far, far_mirror), EXACT)
    t, i = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    near = narrow(tl.where(t > i, near, near_mirror), EXACT)
    for column in tl.range(0, K, BK, disable_licm=True):
        _channels(
            r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, states_ptr, after_ptr, dy_ptr, dr_ptr, dw_ptr, dk_ptr, du_ptr,
            v, dy, v_size, dy_size, d_own, far, near, begin, head, length, place, column, H, K, V, BK, BV, C, EXACT,
        )  # fmt: skip


@triton.jit
def _channels(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, states_ptr, after_ptr, dy_ptr, dr_ptr, dw_ptr, dk_ptr, du_ptr,
    v, dy, v_size, dy_size, d_own, far, near, begin, head, length, place, column, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """BK channels of `gradients`, from the mirrored gradients of the pairs, of the chunk (far) and of blocks (near)."""
    s_size = _unit(_largest_state(states_ptr, place, column, K, V, BK, BV), EXACT)
    ds_size = _unit(_largest_state(after_ptr, place, column, K, V, BK, BV), EXACT)
    r = load_rows(r_ptr, begin, head, length, H, C, K, BK, column)
    k = load_rows(k_ptr, begin, head, length, H, C, K, BK, column)
    size = tl.maximum(s_size, _unit(largest(k), EXACT) * v_size)
    d_size = tl.maximum(ds_size, _unit(largest(r), EXACT) * dy_size)
    ks = column + tl.arange(0, BK)
    du = tl.sum(d_own[:, None] * (r * k), axis=0) * (v_size * dy_size)
    tl.store(du_ptr + place * K + ks, du, mask=ks < K)
    r = spread(narrow(r * (dy_size / d_size), EXACT), BK, EXACT)
    k = spread(narrow(k * (v_size / size), EXACT), BK, EXACT)
    dr = tl.zeros((C, BK), tl.float32)
    dk = tl.zeros((C, BK), tl.float32)
    dw = tl.zeros((C, BK), tl.float32)
    for n in tl.static_range((V + BV - 1) // BV):
        if V > BV:
            v = narrow(load_rows(v_ptr, begin, head, length, H, C, V, BV, n * BV) * (1.0 / v_size), EXACT)
            dy = narrow(load_rows(dy_ptr, begin, head, length, H, C, V, BV, n * BV) * (1.0 / dy_size), EXACT)
        s = _load_state(states_ptr, place, n * BV, column, K, V, BK, BV) * (1.0 / size)
        ds = _load_state(after_ptr, place, n * BV, column, K, V, BK, BV) * (1.0 / d_size)
        dw = add_product(dw, tl.full((C, BV), 1.0, v.dtype), narrow(s * ds, EXACT), EXACT)
        dr = add_product(dr, dy, narrow(s, EXACT), EXACT)
        dk = add_product(dk, v, narrow(ds, EXACT), EXACT)

    # what the states give: dr and dk are still those of r and k decayed from the start and to the end of the chunk
    w = narrow(load_decay(w_ptr, begin, head, length, H, C, K, BK, column), EXACT)
    dw *= weights(tl.full((C, C), 1.0, w.dtype), w, EXACT)
    dr *= weights(triangle(False, C, EXACT), w, EXACT)
    dw = add_product(dw, triangle(True, C, EXACT), narrow(r * dr, EXACT), EXACT)
    dk *= weights(triangle(True, C, EXACT), w, EXACT)
    dw = add_product(dw, triangle(False, C, EXACT), narrow(k * dk, EXACT), EXACT)
    # what each token gives itself
    u = tl.load(u_ptr + head * K + ks, mask=ks < K, other=0.0).to(tl.float32)[None, :]
    dr = settle(dr + d_own[:, None] * k * u)
    dk = settle(dk + d_own[:, None] * r * u)

    weight = weights(pattern(False, C, EXACT), w, EXACT)
    gain, within = _far(r, k, far, weight, C // 2, C, EXACT)
    dr = settle(dr + tl.where(upper(C // 2, C), gain, 0.0))
    dk = settle(dk + tl.where(upper(C // 2, C), 0.0, gain))
    dw = add_product(dw, pattern(True, C, EXACT), narrow(within, EXACT), EXACT)
    w = blocks(w, C)
    weight = reach_in_blocks(w, 16, C, EXACT).reshape(C, BK)
    gain, within = _far(r, k, far, weight, 16, C, EXACT)
    dr = settle(dr + tl.where(upper(16, C), gain, 0.0))
    dk = settle(dk + tl.where(upper(16, C), 0.0, gain))
    dr, dk, dw, r, k = blocks(dr, C), blocks(dk, C), blocks(dw, C), blocks(r, C), blocks(k, C)
    dw = add_product(dw, pattern_of_blocks(16, True, C, EXACT), narrow(blocks(within, C), EXACT), EXACT)
    for n in tl.static_range(1, 4):
        weight = reach_in_blocks(w, 1 << n, C, EXACT)
        gain, within = _near(r, k, near, weight, 1 << n, C, EXACT)
        dr = settle(dr + tl.where(upper_of_blocks(1 << n, C), gain, 0.0))
        dk = settle(dk + tl.where(upper_of_blocks(1 << n, C), 0.0, gain))
        dw = add_product(dw, pattern_of_blocks(1 << n, True, C, EXACT), narrow(within, EXACT), EXACT)
    store_rows(dw_ptr, dw.reshape(C, BK) * (size * d_size), begin, head, length, H, C, K, BK, column)
    i, j = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    own = tl.where((i ^ j) == 1, near, 0.0).to(near.dtype)
    gain = product(own, tl.where(upper_of_blocks(1, C), r, k), EXACT)
    dr += tl.where(upper_of_blocks(1, C), gain, 0.0)
    dk += tl.where(upper_of_blocks(1, C), 0.0, gain)
    store_rows(dr_ptr, dr.reshape(C, BK) * (size * dy_size), begin, head, length, H, C, K, BK, column)
    store_rows(dk_ptr, dk.reshape(C, BK) * (d_size * v_size), begin, head, length, H, C, K, BK, column)
