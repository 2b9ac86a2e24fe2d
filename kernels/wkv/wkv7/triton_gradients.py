"""WKV-7 on Triton, the gradients of what acts on keys: r, w, k, a and b, chunks in parallel."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
from wkv.triton_pieces import (
    exp,
    fine_sums,
    narrow,
    product,
    raw_rows,
    settle,
    store_rows,
    wide_product,
)
from wkv.wkv7.triton_prepare import decay_before, load_tile, lower, upper


@triton.jit
def unit_rows(ptr, size, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, EXACT):
    """`length` tokens of one head in units of each token's own `size` [C]: an operand [C,BD]."""
    x = raw_rows(ptr, begin, head, length, H, C, D, BD)
    return narrow(x.to(tl.float32) * (1 / size)[:, None], EXACT)


@triton.jit(do_not_specialize=["T", "H", "log2_e"])
def gradients(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, v_size_ptr, dy_size_ptr, before_ptr, u_ptr, size_ptr,
    after_ptr, dx_ptr, d_size_ptr, dy_ptr, dr_ptr, dw_ptr, dk_ptr, da_ptr, db_ptr, starts_ptr, T, H, log2_e,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients of r, w, k, a, b of one (chunk, head), from the state before it and its gradient after it.

    In units: u and S of `size`, dx and dS of `d_size`, as the scans stored them, v and dy of each token's own size,
    which k and r take on. r, k, a and b are of one dtype. What acts through v and through u is alike, and so is what
    comes back through dy and dx: a loop takes one after the other, and reads anew what it would not hold in registers.
    What token t itself adds to y_t, r_t . k_t v_t + r_t . b_t u_t, no decay touches: it stays out of the decays' gain,
    where it would leave its rounding errors.
    """
    FINE: tl.constexpr = a_ptr.dtype.element_ty == tl.float16
    owner = tl.program_id(0)
    chunk, head = owner // H, owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = owner.to(tl.int64)
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
    dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV)
    ds = load_tile(after_ptr, place, BK, BV)
    s = load_tile(before_ptr, place, BK, BV)
    dx = load_tile(dx_ptr, place, C, BV)
    size, d_size = tl.load(size_ptr + place), tl.load(d_size_ptr + place)
    v_size = tl.load(v_size_ptr + place * C + tl.arange(0, C))
    dy_size = tl.load(dy_size_ptr + place * C + tl.arange(0, C))
    w = w.to(tl.float32)
    upto = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32) + w
    end = exp(tl.sum(w, axis=0))
    ends = settle(tl.sum(s.to(tl.float32) * ds.to(tl.float32), axis=1) * end)  # [BK], what decays of the whole chunk
    a = a.to(tl.float32) * exp(upto - w)
    r = r.to(tl.float32) * (dy_size / d_size)[:, None] * exp(upto)
    dy = narrow(dy.to(tl.float32) * (1 / dy_size)[:, None], EXACT)
    gain = tl.zeros([C, BK], tl.float32)
    same_v, same_u = tl.zeros([C], tl.float32), tl.zeros([C], tl.float32)
    for j in tl.range(2, disable_licm=True):  # x = v: dk, then x = u: db
        z_ptr, dz_ptr = tl.where(j == 0, k_ptr, b_ptr), tl.where(j == 0, dk_ptr, db_ptr)
        if j == 0:
            x = unit_rows(v_ptr, v_size, begin, head, length, H, C, V, BV, EXACT)
        else:
            x = load_tile(u_ptr, place, C, BV)
        z = raw_rows(z_ptr, begin, head, length, H, C, K, BK)
        unit = tl.where(j == 0, v_size, size)
        dz = product(x, tl.trans(ds), EXACT) * end[None, :]
        ends += tl.sum(z.to(tl.float32) * (unit / size)[:, None] * dz * exp(upto, -1.4426950408889634), axis=0)
        dz += wide_product(upper(product(x, tl.trans(dx), EXACT), C, False), a, EXACT, FINE)
        pairs = product(x, tl.trans(dy), EXACT)
        same = tl.sum(tl.where(t == i, pairs, 0.0), axis=1)
        dz += wide_product(upper(pairs, C, False), r, EXACT, FINE)
        dz *= exp(upto, -log2_e)
        z = raw_rows(z_ptr, begin, head, length, H, C, K, BK)
        r_raw = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
        gain = settle(gain - z.to(tl.float32) * (unit / size)[:, None] * dz)
        dz += r_raw.to(tl.float32) * (same * dy_size / d_size)[:, None]
        store_rows(dz_ptr, dz * (d_size * unit)[:, None], begin, head, length, H, C, K, BK)
        same_v, same_u = tl.where(j == 0, same, same_v), same

    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    v = unit_rows(v_ptr, v_size, begin, head, length, H, C, V, BV, EXACT)
    u = load_tile(u_ptr, place, C, BV)
    fade = exp(upto, -log2_e)
    k = k.to(tl.float32) * (v_size / size)[:, None] * fade
    b = b.to(tl.float32) * fade
    own = gain
    for j in tl.range(2, disable_licm=True):  # x = dy: dr, then x = dx: da
        z_ptr, dz_ptr = tl.where(j == 0, r_ptr, a_ptr), tl.where(j == 0, dr_ptr, da_ptr)
        if j == 0:
            x = unit_rows(dy_ptr, dy_size, begin, head, length, H, C, V, BV, EXACT)
        else:
            x = load_tile(dx_ptr, place, C, BV)
        unit = tl.where(j == 0, dy_size, d_size)
        dz = product(x, tl.trans(s), EXACT)
        dz += wide_product(lower(product(x, tl.trans(v), EXACT), C, False), k, EXACT, FINE)
        z = raw_rows(z_ptr, begin, head, length, H, C, K, BK)
        faded = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
        dz += wide_product(lower(product(x, tl.trans(u), EXACT), C, False), b, EXACT, FINE)
        dz *= exp(upto - faded.to(tl.float32) * j, log2_e)
        k_raw = raw_rows(k_ptr, begin, head, length * (1 - j), H, C, K, BK)
        b_raw = raw_rows(b_ptr, begin, head, length * (1 - j), H, C, K, BK)
        own = z.to(tl.float32) * (unit / d_size)[:, None] * dz
        gain = settle(gain + own)
        dz += k_raw.to(tl.float32) * (same_v * v_size / size)[:, None] + b_raw.to(tl.float32) * same_u[:, None]
        store_rows(dz_ptr, dz * (size * unit)[:, None], begin, head, length, H, C, K, BK)

    # the log decay of token j is part of every later one's: from j on, all gains but that of a_j itself
    dw = fine_sums((i >= t).to(tl.float32), gain, EXACT) + ends[None, :] - own
    store_rows(dw_ptr, dw * (size * d_size), begin, head, length, H, C, K, BK)
