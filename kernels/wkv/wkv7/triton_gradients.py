"""WKV-7 on Triton, the gradients of what acts on keys: r, w, k, a and b, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
from wkv.triton_pieces import exp, fine_sums, narrow, product, raw_rows, settle, store_rows, wide_product
from wkv.wkv7.triton_prepare import decay_before, load_tile, lower, upper


@triton.jit(do_not_specialize=["T", "H", "log2_e"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, v_size_ptr, dy_size_ptr, before_ptr, u_ptr, size_ptr,
    after_ptr, dx_ptr, d_size_ptr, dy_ptr, dr_ptr, dw_ptr, dk_ptr, da_ptr, db_ptr, starts_ptr, T, H, log2_e,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of r, w, k, a, b of one (chunk, head), from the state before it and its gradient after it.

    In units: u and S of `size`, dx and dS of `d_size`, as the scans stored them, v and dy of each token's own size,
    which k and r take on. Tiles are read anew for the second half: a load from the cache costs less than the registers
    that would hold them.
    """
    owner = tl.program_id(0)
    chunk, head = (owner // H).to(tl.int64), owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = owner.to(tl.int64)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    v = raw_rows(v_ptr, begin, head, length, H, C, V, BV)
    dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV)
    ds = load_tile(after_ptr, place, BK, BV)
    s = load_tile(before_ptr, place, BK, BV)
    u = load_tile(u_ptr, place, C, BV)
    dx = load_tile(dx_ptr, place, C, BV)
    size, d_size = tl.load(size_ptr + place), tl.load(d_size_ptr + place)
    both = size * d_size
    w = w.to(tl.float32)
    upto = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32) + w
    end = exp(tl.sum(w, axis=0))
    ends = settle(tl.sum(s.to(tl.float32) * ds.to(tl.float32), axis=1) * end)  # [BK]
    v_size = tl.load(v_size_ptr + place * C + tl.arange(0, C))
    dy_size = tl.load(dy_size_ptr + place * C + tl.arange(0, C))
    v = narrow(v.to(tl.float32) * (1 / v_size)[:, None], EXACT)
    dy = narrow(dy.to(tl.float32) * (1 / dy_size)[:, None], EXACT)
    k_unit, r_unit = v_size / size, dy_size / d_size

    dk = product(v, tl.trans(ds), EXACT) * end[None, :]
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * k_unit[:, None]
    tl.debug_barrier()
    ends += tl.sum(k * dk * exp(upto, -1.4426950408889634), axis=0)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK).to(tl.float32)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * exp(upto - w)
    dk += wide_product(upper(product(v, tl.trans(dx), EXACT), C, False), a, EXACT)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * r_unit[:, None] * exp(upto)
    dk += wide_product(upper(product(v, tl.trans(dy), EXACT), C, True), r, EXACT)
    dk *= exp(upto, -1.4426950408889634)
    store_rows(dk_ptr, dk * (d_size * v_size)[:, None], begin, head, length, H, C, K, BK)
    gain = raw_rows(k_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * -k_unit[:, None] * dk
    # what the decay of the whole chunk gains is part of every token's: it goes to the last
    last = tl.arange(0, C)[:, None] == C - 1
    gain = settle(gain + tl.where(last, ends[None, :], 0.0))
    db = product(u, tl.trans(ds), EXACT) * end[None, :]
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK).to(tl.float32)
    gain = settle(gain + tl.where(last, tl.sum(b * db * exp(upto, -1.4426950408889634), axis=0)[None, :], 0.0))
    db += wide_product(upper(product(u, tl.trans(dx), EXACT), C, False), a, EXACT)
    db += wide_product(upper(product(u, tl.trans(dy), EXACT), C, True), r, EXACT)
    db *= exp(upto, -1.4426950408889634)
    store_rows(db_ptr, db * both, begin, head, length, H, C, K, BK)
    gain = settle(gain - raw_rows(b_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * db)

    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    fade = exp(upto, -log2_e)
    k = k.to(tl.float32) * k_unit[:, None] * fade
    b = b.to(tl.float32) * fade
    dr = product(dy, tl.trans(s), EXACT)
    dr += wide_product(lower(product(dy, tl.trans(v), EXACT), C, True), k, EXACT)
    dr += wide_product(lower(product(dy, tl.trans(u), EXACT), C, True), b, EXACT)
    dr *= exp(upto, log2_e)
    store_rows(dr_ptr, dr * (size * dy_size)[:, None], begin, head, length, H, C, K, BK)
    gain = settle(gain + raw_rows(r_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * r_unit[:, None] * dr)
    da = product(dx, tl.trans(s), EXACT)
    da += wide_product(lower(product(dx, tl.trans(v), EXACT), C, False), k, EXACT)
    da += wide_product(lower(product(dx, tl.trans(u), EXACT), C, False), b, EXACT)
    da *= exp(upto - raw_rows(w_ptr, begin, head, length, H, C, K, BK).to(tl.float32), log2_e)
    store_rows(da_ptr, da * both, begin, head, length, H, C, K, BK)
    # what the decays before t gain through a_t
    own = raw_rows(a_ptr, begin, head, length, H, C, K, BK).to(tl.float32) * da
    gain += own

    # the log decay of token j is part of every later one's: from j on, all gains but that of a_j itself
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    dw = fine_sums((i >= t).to(tl.float32), gain, EXACT) - own
    store_rows(dw_ptr, dw * both, begin, head, length, H, C, K, BK)
