"""WKV-6 backward on Triton: the gradient of the states from chunk to chunk, then every input's, chunks in parallel."""

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
)
from wkv.wkv6.triton_decay import halves, load_decay, pattern, reach, upper


@triton.jit(do_not_specialize=["T", "H"])
def scan_back(
    r_ptr, w_ptr, dy_ptr, ds_ptr, dstates_ptr, ds0_ptr, after_ptr, starts_ptr, first_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk back over the chunks of BV value rows of one (sequence, head), storing the gradient of the state after each.

    The gradient of the state before a chunk is dS diag(decay) + dY^T (r decayed from the start of the chunk), plus
    `dstates`, where the states before the chunks were themselves of use.
    """
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    chunk += count
    ds = load_state(ds_ptr, owner.to(tl.int64), first, K, V, BK, BV)  # [BK,BV], as every state here
    high = upper(C // 2, C)
    for _ in range(count):
        chunk -= 1
        begin, length = chunk_tokens(chunk, starts_ptr, T, C)
        place = chunk * H + head
        store_state(after_ptr, ds, place, first, K, V, BK, BV)
        w, log = load_decay(w_ptr, begin, head, length, H, C, K, BK, EXACT)
        r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, first)
        lower_log, upper_log = halves(log, C)
        inner = reach(w, C // 2, False, C, EXACT)
        before = tl.where(high, inner * tl.exp(lower_log)[None, :], reach(w, C // 2, True, C, EXACT))
        r_size, r_inverse = power_of_two(largest(r), EXACT)
        dy_size, dy_inverse = power_of_two(largest(dy), EXACT)
        new = product(tl.trans(narrow(r * before * r_inverse, EXACT)), narrow(dy * dy_inverse, EXACT), EXACT)
        ds = ds * tl.exp(lower_log + upper_log)[:, None] + new * (r_size * dy_size)
        if dstates_ptr is not None:
            ds += load_state(dstates_ptr, place, first, K, V, BK, BV)
    store_state(ds0_ptr, ds, owner.to(tl.int64), first, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, states_ptr, after_ptr, dy_ptr,
    dr_ptr, dw_ptr, dk_ptr, dv_ptr, du_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of r, w, k, v of one (chunk, head) and its part of u's, from the states before and those after.

    Everything is in units: r of r_size, k of k_size, v and S of size, dY and dS of d_size, so that operands are near 1.
    """
    program = tl.program_id(0)
    chunk, head = (program // H).to(tl.int64), program % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = program.to(tl.int64)
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    apart, high = t ^ i, upper(C // 2, C)
    w, log = load_decay(w_ptr, begin, head, length, H, C, K, BK, EXACT)
    lower_log, upper_log = halves(log, C)
    r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
    k = load_rows(k_ptr, begin, head, length, H, C, K, BK)
    ks = tl.arange(0, BK)
    u = tl.load(u_ptr + head * K + ks, mask=ks < K, other=0.0).to(tl.float32)[None, :]
    r_size, r_inverse = power_of_two(largest(r), EXACT)
    k_size, k_inverse = power_of_two(largest(k), EXACT)
    r, k = r * r_inverse, k * k_inverse

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

    # what the pairs weigh, mirrored: row i holds the queries t > i
    x = narrow(tl.where(upper(1, C), r, k), EXACT)
    found = product(x, tl.trans(x), EXACT)
    for n in tl.static_range(1, 5):
        x = narrow(tl.where(upper(1 << n, C), r, k) * reach(w, 1 << n, False, C, EXACT), EXACT)
        found = tl.where(apart >= 1 << n, product(x, tl.trans(x), EXACT), found)
    inner, outer = reach(w, C // 2, False, C, EXACT), reach(w, C // 2, True, C, EXACT)
    x = narrow(tl.where(high, r, k) * inner, EXACT)
    found = tl.where(apart >= C // 2, product(x, tl.trans(x), EXACT), found)
    found = narrow(tl.where(t < i, found, 0.0), EXACT)
    before = tl.where(high, inner * tl.exp(lower_log)[None, :], outer)
    after = tl.where(high, outer, inner * tl.exp(upper_log)[None, :])
    own = tl.sum(r * k * u, axis=1)
    k_end = narrow(k * after, EXACT)

    d_own = tl.zeros((C,), tl.float32)
    d_found = tl.zeros((C, C), tl.float32)
    mirror = tl.zeros((C, C), tl.float32)
    dr = tl.zeros((C, BK), tl.float32)
    dk = tl.zeros((C, BK), tl.float32)
    decay = tl.zeros((BK,), tl.float32)
    for tile in tl.static_range((V + BV - 1) // BV):
        s = load_state(states_ptr, place, tile * BV, K, V, BK, BV) * inverse_size
        ds = load_state(after_ptr, place, tile * BV, K, V, BK, BV) * d_inverse
        decay += tl.sum(s * ds, axis=1)
        v = load_rows(v_ptr, begin, head, length, H, C, V, BV, tile * BV) * (k_size * inverse_size)
        dy = load_rows(dy_ptr, begin, head, length, H, C, V, BV, tile * BV) * (r_size * d_inverse)
        d_own += tl.sum(v * dy, axis=1)
        dv = own[:, None] * dy
        s, ds, v, dy = narrow(s, EXACT), narrow(ds, EXACT), narrow(v, EXACT), narrow(dy, EXACT)
        dv = add_product(dv, k_end, ds, EXACT)
        dv = add_product(dv, found, dy, EXACT)
        store_rows(dv_ptr, dv * (d_size * k_size), begin, head, length, H, C, V, BV, tile * BV)
        d_found = add_product(d_found, dy, tl.trans(v), EXACT)
        mirror = add_product(mirror, v, tl.trans(dy), EXACT)
        dr = add_product(dr, dy, tl.trans(s), EXACT)
        dk = add_product(dk, v, tl.trans(ds), EXACT)

    unit = size * d_size
    both = narrow(tl.where(t > i, d_found, mirror), EXACT)
    dr *= before
    dk *= after
    from_start, to_end = r * dr, k * dk  # gradients of the log weights `before` and `after`
    crossing = tl.sum(tl.where(high, from_start, 0.0), axis=0), tl.sum(tl.where(high, 0.0, to_end), axis=0)
    total = decay * tl.exp(lower_log + upper_log)
    dw = total[None, :] + tl.where(high, crossing[1][None, :], crossing[0][None, :])
    turned = tl.trans(pattern(C // 2, True, C, EXACT))
    dw = add_product(dw, turned, narrow(tl.where(high, to_end, from_start), EXACT), EXACT)
    inside = tl.where(high, from_start, to_end)

    one = d_own[:, None]
    du = tl.sum(one * r * k, axis=0)
    tl.store(du_ptr + place * K + ks, du * unit, mask=ks < K)
    dr += one * k * u
    dk += one * r * u
    mine = tl.where(upper(1, C), r, k)
    gain = product(tl.where(apart == 1, both, 0.0).to(both.dtype), narrow(mine, EXACT), EXACT)
    dr += tl.where(upper(1, C), gain, 0.0)
    dk += tl.where(upper(1, C), 0.0, gain)
    for n in tl.static_range(1, 6):
        s: tl.constexpr = 1 << n
        weight = reach(w, s, False, C, EXACT)
        mine = tl.where(upper(s, C), r, k)
        own_pairs = tl.where((apart >= s) & (apart < 2 * s), both, 0.0).to(both.dtype)
        gain = product(own_pairs, narrow(mine * weight, EXACT), EXACT) * weight
        dr += tl.where(upper(s, C), gain, 0.0)
        dk += tl.where(upper(s, C), 0.0, gain)
        gain *= mine
        if s == C // 2:
            gain += inside
        dw = add_product(dw, tl.trans(pattern(s, False, C, EXACT)), narrow(gain, EXACT), EXACT)
    store_rows(dr_ptr, dr * (unit * r_inverse), begin, head, length, H, C, K, BK)
    store_rows(dk_ptr, dk * (unit * k_inverse), begin, head, length, H, C, K, BK)
    store_rows(dw_ptr, dw * unit, begin, head, length, H, C, K, BK)
