"""WKV-7 on Triton, what a chunk does to any state: all that no state and no value enters, chunks in parallel.

A chunk of C tokens takes a state S0 [V,K] and its values v [C,V] to (rows are tokens; ~, ^ and _ carry the decays up to
a token, back from it, and on to the end of the chunk; A_xy[t,i] = x~_t . y^_i for i < t, for r also i = t)

    u = a~ S0^T + A_ab u + A_ak v       = W S0^T + R v      W = I' a~, R = I' A_ak, I' = (I - A_ab)^-1
    y = r~ S0^T + A_rb u + A_rk v       = Q S0^T + P v      Q = r~ + A_rb W, P = A_rk + A_rb R
    S = S0 D + u^T b_ + v^T k_          = S0 D + S0 G^T + v^T F      G = b_^T W, F = k_ + R^T b_

and back, with dx the gradient of what u solves for, u = I' x,

    dx = I'^T (A_rb^T dy + b_ dS^T)     = M^T dy + N dS^T            M = A_rb I', N = I'^T b_
"""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
from wkv.triton_pieces import add_product, exp, narrow, power_of_two, product, raw_rows, sums, wide_product


@triton.jit
def load_tile(ptr, place, C: tl.constexpr, D: tl.constexpr):
    """The tile [C,D] of one (chunk, head) of [chunks,H,C,D]."""
    rows, columns = tl.arange(0, C)[:, None], tl.arange(0, D)[None, :]
    return tl.load(ptr + place * (C * D) + rows * D + columns)


@triton.jit
def store_tile(ptr, x, place, C: tl.constexpr, D: tl.constexpr):
    """The reverse of `load_tile`, in the dtype of the tensor."""
    rows, columns = tl.arange(0, C)[:, None], tl.arange(0, D)[None, :]
    tl.store(ptr + place * (C * D) + rows * D + columns, x.to(ptr.dtype.element_ty))


@triton.jit
def decay_before(w, C: tl.constexpr, EXACT: tl.constexpr):
    """The sum of the log decays w [C,K] of the tokens before each.

    Products of the decays between two tokens are formed of two factors, e^x and e^-x of such sums: no log decay of
    RWKV-7 is below -exp(-1/2), so over 64 tokens they stay within 1e-17 and 1e17, which fp32 and tf32 hold.
    """
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    return sums((i < t).to(tl.float32), w, EXACT)


@triton.jit
def to_end(
    x, x_ptr, end, w, begin, head, length, H, K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr
):
    """Tokens x / e^(decay up to each) [C,K], carried on to the end of the chunk (`end`: its whole decay).

    Where products are EXACT, 1e17 times 1e-17 is not: then it is formed of the tensor and of the sum that is left.
    """
    if EXACT:
        t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
        x = raw_rows(x_ptr, begin, head, length, H, C, K, BK).to(tl.float32)
        return x * exp(sums((i > t).to(tl.float32), w, EXACT))
    else:  # (what follows a return is compiled too)
        return x * end[None, :]


@triton.jit
def lower(x, C: tl.constexpr, diagonal: tl.constexpr):
    """x [C,C] where i < t, or i <= t with the diagonal; zeros elsewhere."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if diagonal:
        return tl.where(i <= t, x, 0.0)
    else:
        return tl.where(i < t, x, 0.0)


@triton.jit
def upper(x, C: tl.constexpr, diagonal: tl.constexpr):
    """x [C,C] where i > t, or i >= t with the diagonal; zeros elsewhere."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if diagonal:
        return tl.where(i >= t, x, 0.0)
    else:
        return tl.where(i > t, x, 0.0)


@triton.jit
def row_sizes(x, EXACT: tl.constexpr):
    """(p, 1 / p) [C]: the power of two under the largest element of each row."""
    return power_of_two(tl.max(tl.abs(x), axis=1), EXACT)


@triton.jit
def unit_inverse(x, C: tl.constexpr, EXACT: tl.constexpr):
    """(I - x)^-1 of a strictly lower triangular x [C,C], by blocks that double: with D the inverses of the blocks of
    size s on the diagonal and B what lies below them in blocks of size 2s, the next D is D + D B D.

    Nothing larger than the inverses themselves is ever formed, unlike in a power series of x.
    """
    apart = tl.arange(0, C)[:, None] ^ tl.arange(0, C)[None, :]  # its highest bit: the size at which two tokens part
    inverse = tl.where(apart == 0, 1.0, tl.where(apart == 1, x, 0.0))
    x = narrow(x, EXACT)
    for level in tl.static_range(1, 6):  # s = 2, 4, 8, 16, 32
        if C >> level > 1:
            now = narrow(inverse, EXACT)
            half = tl.where((apart >> level) == 1, product(now, x, EXACT), 0.0)
            inverse = add_product(inverse, narrow(half, EXACT), now, EXACT)
    return inverse


@triton.jit(do_not_specialize=["T", "H"])
def solve(
    w_ptr, a_ptr, b_ptr, inverse_ptr, starts_ptr, T, H,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """I' = (I - A_ab)^-1 [C,C] of every (chunk, head)."""
    FINE: tl.constexpr = a_ptr.dtype.element_ty == tl.float16
    program = tl.program_id(0)
    chunk, head = program // H, program % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    w, a, b = w.to(tl.float32), a.to(tl.float32), b.to(tl.float32)
    before = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    x = lower(wide_product(a * exp(before), tl.trans(b * exp(-before - w)), EXACT, FINE), C, False)
    store_tile(inverse_ptr, unit_inverse(x, C, EXACT), program.to(tl.int64), C, C)


@triton.jit(do_not_specialize=["T", "H", "log2_e"])
def prepare(
    r_ptr, w_ptr, k_ptr, a_ptr, b_ptr, inverse_ptr, q_ptr, p_ptr, g_ptr, f_ptr, removal_ptr, reading_ptr, m_ptr, n_ptr,
    decay_ptr, r_size_ptr, k_size_ptr, starts_ptr, T, H, log2_e,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Q [C,K], P [C,C], G [K,K], F [C,K] and D [K] of every (chunk, head); KEEP: also W, R, M [C,C] and N [C,K].

    r and k go in units of each token's own size, r_size and k_size [C].
    """
    FINE: tl.constexpr = a_ptr.dtype.element_ty == tl.float16
    program = tl.program_id(0)
    chunk, head = program // H, program % H
    place = program.to(tl.int64)
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    inverse = load_tile(inverse_ptr, place, C, C)
    w = w.to(tl.float32)
    upto = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32) + w
    end = exp(tl.sum(w, axis=0))
    k = k.to(tl.float32)
    k_size, k_inverse = row_sizes(k, EXACT)
    k = k * k_inverse[:, None] * exp(upto, -1.4426950408889634)
    a = a.to(tl.float32) * exp(upto - w)
    removal = narrow(product(inverse, narrow(a, EXACT), EXACT), EXACT)  # W
    a_k = lower(wide_product(a, tl.trans(k), EXACT, FINE), C, False)
    reading = narrow(product(inverse, narrow(a_k, EXACT), EXACT), EXACT)  # R
    r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    r = r.to(tl.float32)
    r_size, r_inverse = row_sizes(r, EXACT)
    r = r * r_inverse[:, None] * exp(upto, log2_e)
    r_k = lower(wide_product(r, tl.trans(k), EXACT, FINE), C, True)
    b = b.to(tl.float32) * exp(upto, -log2_e)
    r_b = narrow(lower(wide_product(r, tl.trans(b), EXACT, FINE), C, True), EXACT)
    p = r_k + product(r_b, reading, EXACT)
    q = r + product(r_b, removal, EXACT)
    b_end = narrow(to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT), EXACT)
    k_end = to_end(k, k_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
    f = k_end + product(tl.trans(reading), b_end, EXACT)
    g = product(tl.trans(b_end), removal, EXACT)
    store_tile(p_ptr, p, place, C, C)
    store_tile(q_ptr, q, place, C, BK)
    store_tile(f_ptr, f, place, C, BK)
    store_tile(g_ptr, g, place, BK, BK)
    if KEEP:
        store_tile(m_ptr, product(r_b, inverse, EXACT), place, C, C)
        store_tile(n_ptr, product(tl.trans(inverse), b_end, EXACT), place, C, BK)
        store_tile(removal_ptr, removal, place, C, BK)
        store_tile(reading_ptr, reading, place, C, C)
    tl.store(decay_ptr + place * BK + tl.arange(0, BK), end)
    tl.store(r_size_ptr + place * C + tl.arange(0, C), r_size)
    tl.store(k_size_ptr + place * C + tl.arange(0, C), k_size)
