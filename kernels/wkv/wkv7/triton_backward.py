"""WKV-7 backward on Triton: the gradient of the states from chunk to chunk, then every input's, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens, sequence_chunks
from wkv.triton_pieces import (
    add_product,
    exp,
    fine_sums,
    load_state,
    narrow,
    power_of_two,
    product,
    raw_rows,
    store_rows,
    store_state,
    wide_product,
)
from wkv.wkv7.triton_scan import load_tile, row_sizes, store_tile
from wkv.wkv7.triton_solve import decay_before, lower, to_end, upper


@triton.jit(do_not_specialize=["T", "H"])
def scan_back(
    r_ptr, w_ptr, a_ptr, b_ptr, inverse_ptr, dy_ptr, ds_ptr, dstates_ptr, ds0_ptr, after_ptr, dx_ptr, size_ptr,
    starts_ptr, first_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk back over the chunks of one (sequence, head), storing the gradient of the state after each, and dX.

    With D the decay of the chunk, dU = A_rb^T dY + b_ dS^T and dX = (I - A)^-T dU, the gradient of the state before it
    is dS D + dY^T r~ + dX^T a~ (plus `dstates`, where the states before the chunks were themselves of use).
    """
    owner = tl.program_id(0)
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    chunk += count
    ds = load_state(ds_ptr, owner.to(tl.int64), 0, K, V, BK, BV)  # [BK,BV], as every state here
    for _ in range(count):
        chunk -= 1
        begin, length = chunk_tokens(chunk, starts_ptr, T, C)
        place = chunk * H + head
        w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
        r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
        a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
        b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
        dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV)
        inverse = load_tile(inverse_ptr, place, C, C)
        store_state(after_ptr, ds, place, 0, K, V, BK, BV)
        w, r, a, b, dy = w.to(tl.float32), r.to(tl.float32), a.to(tl.float32), b.to(tl.float32), dy.to(tl.float32)
        before = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
        r_size, r_inverse = row_sizes(r, EXACT)
        largest = tl.max(tl.max(tl.abs(dy), axis=1) * r_size, axis=0)
        largest = tl.maximum(largest, tl.max(tl.max(tl.abs(ds), axis=1), axis=0))
        size, inverse_size = power_of_two(largest, EXACT)
        dy = narrow(dy * (r_size * inverse_size)[:, None], EXACT)
        r = r * r_inverse[:, None] * exp(before + w)
        b = b * exp(-before - w)
        r_b = lower(wide_product(r, tl.trans(b), EXACT), C, True)
        end = exp(tl.sum(w, axis=0))
        b_end = to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        du = product(b_end, narrow(ds * inverse_size, EXACT), EXACT)
        du = add_product(du, tl.trans(narrow(r_b, EXACT)), dy, EXACT)
        dx = narrow(product(tl.trans(inverse), narrow(du, EXACT), EXACT), EXACT)
        store_tile(dx_ptr, dx, place, C, BV)
        tl.store(size_ptr + place, size)
        new = product(tl.trans(narrow(r, EXACT)), dy, EXACT)
        new = add_product(new, tl.trans(narrow(a * exp(before), EXACT)), dx, EXACT)
        ds = ds * end[:, None] + new * size
        if dstates_ptr is not None:
            ds += load_state(dstates_ptr, place, 0, K, V, BK, BV)
    store_state(ds0_ptr, ds, owner.to(tl.int64), 0, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, states_ptr, u_ptr, size_ptr, after_ptr, dx_ptr, d_size_ptr, dy_ptr,
    dr_ptr, dw_ptr, dk_ptr, dv_ptr, da_ptr, db_ptr, starts_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of the six inputs of one (chunk, head): one after the other, to hold few tiles at a time.

    In the units of the scans: r and k of each token's own size, v, U and S of `size`, dY, dX and dS of `d_size`.
    """
    owner = tl.program_id(0)
    chunk, head = (owner // H).to(tl.int64), owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = owner.to(tl.int64)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV)
    dx = load_tile(dx_ptr, place, C, BV)
    size, d_size = tl.load(size_ptr + place), tl.load(d_size_ptr + place)
    ds = load_state(after_ptr, place, 0, K, V, BK, BV)
    w, r, k = w.to(tl.float32), r.to(tl.float32), k.to(tl.float32)
    before = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    end = exp(tl.sum(w, axis=0))
    r_size, r_inverse = row_sizes(r, EXACT)
    k_size, k_inverse = row_sizes(k, EXACT)
    dy = narrow(dy.to(tl.float32) * (r_size / d_size)[:, None], EXACT)
    ds *= 1 / d_size

    # dV, of matrices computed transposed, so that no tile of registers has to be
    k = k * k_inverse[:, None] * exp(-before - w)
    k_end = to_end(k, k_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
    dv = product(k_end, narrow(ds, EXACT), EXACT)
    r = r * r_inverse[:, None] * exp(before + w)
    k_r = upper(wide_product(k, tl.trans(r), EXACT), C, True)
    dv = add_product(dv, narrow(k_r, EXACT), dy, EXACT)
    a = a.to(tl.float32) * exp(before)
    k_a = upper(wide_product(k, tl.trans(a), EXACT), C, False)
    dv = add_product(dv, narrow(k_a, EXACT), dx, EXACT)
    store_rows(dv_ptr, dv * (d_size * k_size)[:, None], begin, head, length, H, C, V, BV)

    # every tile is read anew below: a load from the cache costs less than the registers that would hold it
    s = load_state(states_ptr, place, 0, K, V, BK, BV)
    u = load_tile(u_ptr, place, C, BV)
    v = raw_rows(v_ptr, begin, head, length, H, C, V, BV)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    v = narrow(v.to(tl.float32) * (k_size / size)[:, None], EXACT)
    s *= 1 / size
    ends = tl.sum(s * ds, axis=1) * end  # [BK] what the decay of the whole chunk gains
    s, ds = narrow(s, EXACT), narrow(ds, EXACT)
    both = size * d_size

    dk = product(v, tl.trans(ds), EXACT) * end[None, :]
    db = product(u, tl.trans(ds), EXACT) * end[None, :]
    fade = exp(-before - w)
    k = k.to(tl.float32) * k_inverse[:, None]
    b = b.to(tl.float32)
    ends += tl.sum((k * dk + b * db) * fade, axis=0)
    a = a.to(tl.float32) * exp(before)
    dk += wide_product(upper(product(v, tl.trans(dx), EXACT), C, False), a, EXACT)
    db += wide_product(upper(product(u, tl.trans(dx), EXACT), C, False), a, EXACT)
    r = r.to(tl.float32) * r_inverse[:, None] * exp(before + w)
    dk += wide_product(upper(product(v, tl.trans(dy), EXACT), C, True), r, EXACT)
    db += wide_product(upper(product(u, tl.trans(dy), EXACT), C, True), r, EXACT)
    dk *= fade
    db *= fade
    gain = -k * dk - b * db
    store_rows(dk_ptr, dk * (both * k_inverse)[:, None], begin, head, length, H, C, K, BK)
    store_rows(db_ptr, db * both, begin, head, length, H, C, K, BK)

    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
    da = product(dx, tl.trans(s), EXACT)
    dr = product(dy, tl.trans(s), EXACT)
    fade = exp(-before - w)
    b = b.to(tl.float32) * fade
    da += wide_product(lower(product(dx, tl.trans(u), EXACT), C, False), b, EXACT)
    dr += wide_product(lower(product(dy, tl.trans(u), EXACT), C, True), b, EXACT)
    k = k.to(tl.float32) * k_inverse[:, None] * fade
    da += wide_product(lower(product(dx, tl.trans(v), EXACT), C, False), k, EXACT)
    dr += wide_product(lower(product(dy, tl.trans(v), EXACT), C, True), k, EXACT)
    da *= exp(before)
    dr *= exp(before + w)
    own = a.to(tl.float32) * da  # what the decays before t gain through a_t
    gain += own + r.to(tl.float32) * r_inverse[:, None] * dr
    store_rows(da_ptr, da * both, begin, head, length, H, C, K, BK)
    store_rows(dr_ptr, dr * (both * r_inverse)[:, None], begin, head, length, H, C, K, BK)

    # the log decay of token j is part of every later one's: from j on, all gains but that of a_j itself
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    dw = fine_sums((i >= t).to(tl.float32), gain, EXACT) + ends[None, :] - own
    store_rows(dw_ptr, dw * both, begin, head, length, H, C, K, BK)
