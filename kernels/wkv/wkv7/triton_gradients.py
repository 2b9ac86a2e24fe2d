"""WKV-7 on Triton, the gradients of what acts on keys: r, w, k, a and b, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
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
    wide_product,
)
from wkv.wkv7.triton_prepare import decay_before, load_tile, lower, to_end, upper
from wkv.wkv7.triton_scan import larger


@triton.jit(do_not_specialize=["T", "H"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, states_ptr, inverse_ptr, r_size_ptr, k_size_ptr, after_ptr, dy_ptr,
    dr_ptr, dw_ptr, dk_ptr, da_ptr, db_ptr, starts_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of r, w, k, a, b of one (chunk, head), from the state before it and its gradient after it.

    In units as in the scans: r and k of each token's own size, v, u and S of `size`, dy, dx and dS of `d_size`; x is
    what u is the solution for, u = I' x. Tiles are read anew for each part: a load from the cache costs less than
    the registers that would hold them.
    """
    owner = tl.program_id(0)
    chunk, head = (owner // H).to(tl.int64), owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = owner.to(tl.int64)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    s = load_state(states_ptr, place, 0, K, V, BK, BV)
    ds = load_state(after_ptr, place, 0, K, V, BK, BV)
    v = raw_rows(v_ptr, begin, head, length, H, C, V, BV)
    dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    inverse = load_tile(inverse_ptr, place, C, C)
    r_size = tl.load(r_size_ptr + place * C + tl.arange(0, C))
    k_size = tl.load(k_size_ptr + place * C + tl.arange(0, C))
    w, v, dy = w.to(tl.float32), v.to(tl.float32), dy.to(tl.float32)
    before = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    end = exp(tl.sum(w, axis=0))
    size, inverse_size = power_of_two(larger(v, k_size, s), EXACT)
    d_size, d_inverse = power_of_two(larger(dy, r_size, ds), EXACT)
    s *= inverse_size
    ds *= d_inverse
    ends = tl.sum(s * ds, axis=1) * end  # [BK] what the decay of the whole chunk gains
    v = narrow(v * (k_size * inverse_size)[:, None], EXACT)
    dy = narrow(dy * (r_size * d_inverse)[:, None], EXACT)
    s, ds = narrow(s, EXACT), narrow(ds, EXACT)

    a = a.to(tl.float32) * exp(before)
    x = product(narrow(a, EXACT), s, EXACT)
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * (1 / k_size)[:, None] * exp(-before - w)
    x = add_product(x, narrow(lower(wide_product(a, tl.trans(k), EXACT), C, False), EXACT), v, EXACT)
    u = narrow(product(inverse, narrow(x, EXACT), EXACT), EXACT)
    b = b.to(tl.float32) * exp(-before - w)
    b_end = to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
    du = product(narrow(b_end, EXACT), ds, EXACT)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * (1 / r_size)[:, None] * exp(before + w)
    b_r = upper(wide_product(b, tl.trans(r), EXACT), C, True)  # transposed, so that no tile of registers has to be
    du = add_product(du, narrow(b_r, EXACT), dy, EXACT)
    dx = narrow(product(tl.trans(inverse), narrow(du, EXACT), EXACT), EXACT)
    tl.debug_barrier()

    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    both = size * d_size
    dk = product(v, tl.trans(ds), EXACT) * end[None, :]
    db = product(u, tl.trans(ds), EXACT) * end[None, :]
    fade = exp(-before - w)
    k = k.to(tl.float32) * (1 / k_size)[:, None]
    b = b.to(tl.float32)
    ends += tl.sum((k * dk + b * db) * fade, axis=0)
    a = a.to(tl.float32) * exp(before)
    dk += wide_product(upper(product(v, tl.trans(dx), EXACT), C, False), a, EXACT)
    db += wide_product(upper(product(u, tl.trans(dx), EXACT), C, False), a, EXACT)
    r = r.to(tl.float32) * (1 / r_size)[:, None] * exp(before + w)
    dk += wide_product(upper(product(v, tl.trans(dy), EXACT), C, True), r, EXACT)
    db += wide_product(upper(product(u, tl.trans(dy), EXACT), C, True), r, EXACT)
    dk *= fade
    db *= fade
    gain = -k * dk - b * db
    store_rows(dk_ptr, dk * (both / k_size)[:, None], begin, head, length, H, C, K, BK)
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
    k = k.to(tl.float32) * (1 / k_size)[:, None] * fade
    da += wide_product(lower(product(dx, tl.trans(v), EXACT), C, False), k, EXACT)
    dr += wide_product(lower(product(dy, tl.trans(v), EXACT), C, True), k, EXACT)
    da *= exp(before)
    dr *= exp(before + w)
    own = a.to(tl.float32) * da  # what the decays before t gain through a_t
    gain += own + r.to(tl.float32) * (1 / r_size)[:, None] * dr
    store_rows(da_ptr, da * both, begin, head, length, H, C, K, BK)
    store_rows(dr_ptr, dr * (both / r_size)[:, None], begin, head, length, H, C, K, BK)

    # the log decay of token j is part of every later one's: from j on, all gains but that of a_j itself
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    dw = fine_sums((i >= t).to(tl.float32), gain, EXACT) + ends[None, :] - own
    store_rows(dw_ptr, dw * both, begin, head, length, H, C, K, BK)
