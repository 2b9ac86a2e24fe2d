"""WKV-7 backward on Triton: the gradient of the states from chunk to chunk, then every input's, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens, sequence_chunks
from wkv.triton_pieces import (
    add_product,
    largest,
    load_rows,
    load_state,
    narrow,
    power_of_two,
    product,
    store_rows,
    store_state,
    wide_product,
)
from wkv.wkv7.triton_scan import load_inverse
from wkv.wkv7.triton_solve import centred, lower


@triton.jit(do_not_specialize=["T", "H"])
def scan_back(
    r_ptr, w_ptr, a_ptr, b_ptr, inverse_ptr, dy_ptr, ds_ptr, dstates_ptr, ds0_ptr, after_ptr, starts_ptr, first_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk back over the chunks of BV value rows of one (sequence, head), storing the gradient of the state after each.

    With D the decay of the chunk, dU = A_rb^T dY + b_ dS^T and dX = (I - A)^-T dU, the gradient of the state before it
    is dS D + dY^T r~ + dX^T a~ (plus `dstates`, where the states before the chunks were themselves of use).
    """
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    chunk += count
    ds = load_state(ds_ptr, owner.to(tl.int64), first, K, V, BK, BV)  # [BK,BV], as every state here
    left = tl.arange(0, C)[:, None] < C // 2
    for _ in range(count):
        chunk -= 1
        begin, length = chunk_tokens(chunk, starts_ptr, T, C)
        place = chunk * H + head
        store_state(after_ptr, ds, place, first, K, V, BK, BV)
        w = load_rows(w_ptr, begin, head, length, H, C, K, BK)
        r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
        a = load_rows(a_ptr, begin, head, length, H, C, K, BK)
        b = load_rows(b_ptr, begin, head, length, H, C, K, BK)
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, first)
        before, upto = centred(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
        middle = tl.sum(tl.where(left, w, 0.0), axis=0)
        rest = tl.sum(tl.where(left, 0.0, w), axis=0)

        r_size, r_inverse = power_of_two(largest(r), EXACT)
        size, inverse_size = power_of_two(tl.maximum(largest(ds), largest(dy) * r_size), EXACT)
        dy = narrow(dy * (r_size * inverse_size), EXACT)
        r = r * (tl.exp(upto) * r_inverse)
        b = b * tl.exp(-upto)
        start = tl.exp(middle)[None, :]
        r_b = lower(wide_product(r, tl.trans(b), EXACT), C, True)
        du = product(narrow(b * tl.exp(rest)[None, :], EXACT), narrow(ds * inverse_size, EXACT), EXACT)
        du = add_product(du, tl.trans(narrow(r_b, EXACT)), dy, EXACT)
        dx = product(tl.trans(load_inverse(inverse_ptr, place, C)), narrow(du, EXACT), EXACT)
        new = product(tl.trans(narrow(r * start, EXACT)), dy, EXACT)
        a = narrow(a * tl.exp(before) * start, EXACT)
        new = add_product(new, tl.trans(a), narrow(dx, EXACT), EXACT)
        ds = ds * tl.exp(middle + rest)[:, None] + new * size
        if dstates_ptr is not None:
            ds += load_state(dstates_ptr, place, first, K, V, BK, BV)
    store_state(ds0_ptr, ds, owner.to(tl.int64), first, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, states_ptr, after_ptr, dy_ptr,
    dr_ptr, dw_ptr, dk_ptr, dv_ptr, da_ptr, db_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of the six inputs of one (chunk, head), from the states before and their gradients after.

    Everything is in units: r of r_size, k of k_size, v and S of size, dY and dS of d_size, so that operands are near 1.
    """
    program = tl.program_id(0)
    chunk, head = (program // H).to(tl.int64), program % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = program.to(tl.int64)
    w = load_rows(w_ptr, begin, head, length, H, C, K, BK)
    before, upto = centred(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    left = tl.arange(0, C)[:, None] < C // 2
    middle = tl.sum(tl.where(left, w, 0.0), axis=0)  # [BK]
    rest = tl.sum(tl.where(left, 0.0, w), axis=0)
    start, end = tl.exp(middle)[None, :], tl.exp(rest)[None, :]
    r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
    k = load_rows(k_ptr, begin, head, length, H, C, K, BK)
    a = load_rows(a_ptr, begin, head, length, H, C, K, BK)
    b = load_rows(b_ptr, begin, head, length, H, C, K, BK)
    r_size, r_inverse = power_of_two(largest(r), EXACT)
    k_size, k_inverse = power_of_two(largest(k), EXACT)
    shrink, fade = tl.exp(upto), tl.exp(-upto)
    r = r * (shrink * r_inverse)
    k = k * (fade * k_inverse)
    a = a * tl.exp(before)
    b = b * fade
    a_k = narrow(lower(wide_product(a, tl.trans(k), EXACT), C, False), EXACT)
    r_k = narrow(lower(wide_product(r, tl.trans(k), EXACT), C, True), EXACT)
    r_b = narrow(lower(wide_product(r, tl.trans(b), EXACT), C, True), EXACT)
    inverse = load_inverse(inverse_ptr, place, C)

    a_start, b_end, k_end = narrow(a * start, EXACT), narrow(b * end, EXACT), narrow(k * end, EXACT)
    size, d_size = 0.0, 0.0
    for tile in tl.static_range((V + BV - 1) // BV):
        s = load_state(states_ptr, place, tile * BV, K, V, BK, BV)
        v = load_rows(v_ptr, begin, head, length, H, C, V, BV, tile * BV)
        size = tl.maximum(size, tl.maximum(largest(s), largest(v) * k_size))
        ds = load_state(after_ptr, place, tile * BV, K, V, BK, BV)
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, tile * BV)
        d_size = tl.maximum(d_size, tl.maximum(largest(ds), largest(dy) * r_size))
    size, inverse_size = power_of_two(size, EXACT)
    d_size, d_inverse = power_of_two(d_size, EXACT)

    d_ak = tl.zeros((C, C), tl.float32)
    d_ab = tl.zeros((C, C), tl.float32)
    d_rk = tl.zeros((C, C), tl.float32)
    d_rb = tl.zeros((C, C), tl.float32)
    da = tl.zeros((C, BK), tl.float32)
    dr = tl.zeros((C, BK), tl.float32)
    dk = tl.zeros((C, BK), tl.float32)
    db = tl.zeros((C, BK), tl.float32)
    decay = tl.zeros((BK,), tl.float32)
    for tile in tl.static_range((V + BV - 1) // BV):
        s = load_state(states_ptr, place, tile * BV, K, V, BK, BV) * inverse_size
        ds = load_state(after_ptr, place, tile * BV, K, V, BK, BV) * d_inverse
        decay += tl.sum(s * ds, axis=1)
        s, ds = narrow(s, EXACT), narrow(ds, EXACT)
        v = load_rows(v_ptr, begin, head, length, H, C, V, BV, tile * BV) * (k_size * inverse_size)
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, tile * BV) * (r_size * d_inverse)
        v, dy = narrow(v, EXACT), narrow(dy, EXACT)
        x = product(a_start, s, EXACT)
        x = add_product(x, a_k, v, EXACT)
        u = narrow(product(inverse, narrow(x, EXACT), EXACT), EXACT)
        du = product(b_end, ds, EXACT)
        du = add_product(du, tl.trans(r_b), dy, EXACT)
        dx = narrow(product(tl.trans(inverse), narrow(du, EXACT), EXACT), EXACT)
        dv = product(k_end, ds, EXACT)
        dv = add_product(dv, tl.trans(r_k), dy, EXACT)
        dv = add_product(dv, tl.trans(a_k), dx, EXACT)
        store_rows(dv_ptr, dv * (d_size * k_size), begin, head, length, H, C, V, BV, tile * BV)
        d_ak = add_product(d_ak, dx, tl.trans(v), EXACT)
        d_ab = add_product(d_ab, dx, tl.trans(u), EXACT)
        d_rk = add_product(d_rk, dy, tl.trans(v), EXACT)
        d_rb = add_product(d_rb, dy, tl.trans(u), EXACT)
        da = add_product(da, dx, tl.trans(s), EXACT)
        dr = add_product(dr, dy, tl.trans(s), EXACT)
        dk = add_product(dk, v, tl.trans(ds), EXACT)
        db = add_product(db, u, tl.trans(ds), EXACT)

    d_ak, d_ab = lower(d_ak, C, False), lower(d_ab, C, False)
    d_rk, d_rb = lower(d_rk, C, True), lower(d_rb, C, True)
    both = size * d_size
    da = da * start + wide_product(d_ab, b, EXACT) + wide_product(d_ak, k, EXACT)
    own = a * da  # what the decay before t gains through a_t
    store_rows(da_ptr, da * tl.exp(before) * both, begin, head, length, H, C, K, BK)
    dr = dr * start + wide_product(d_rb, b, EXACT) + wide_product(d_rk, k, EXACT)
    gain = own + r * dr
    store_rows(dr_ptr, dr * shrink * (both * r_inverse), begin, head, length, H, C, K, BK)
    dk = dk * end
    ends = tl.sum(k * dk, axis=0)
    dk += wide_product(tl.trans(d_ak), a, EXACT) + wide_product(tl.trans(d_rk), r, EXACT)
    gain -= k * dk
    store_rows(dk_ptr, dk * fade * (both * k_inverse), begin, head, length, H, C, K, BK)
    db = db * end
    ends += tl.sum(b * db, axis=0) + decay * tl.exp(middle + rest)
    db += wide_product(tl.trans(d_ab), a, EXACT) + wide_product(tl.trans(d_rb), r, EXACT)
    gain -= b * db
    store_rows(db_ptr, db * fade * both, begin, head, length, H, C, K, BK)
    # the log decay of token j is part of every later one's: from j on, all gains but that of a_j itself
    total = tl.sum(gain, axis=0)
    dw = (total + ends)[None, :] - tl.cumsum(gain, axis=0) + gain - own
    store_rows(dw_ptr, dw * both, begin, head, length, H, C, K, BK)
