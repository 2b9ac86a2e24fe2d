"""WKV-7 on Triton, what a chunk owes to itself: its decays, its matrices, and the inverse that unties its removals.

Within a chunk that starts from S0 the removals u_t = S_(t-1) a_t [V] obey U = X + A U, where X = a~ S0^T + A_ak V and
A[t,i] = a~_t . b^_i for i < t. So U = (I - A)^-1 X, and the inverse depends on no state.
"""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens
from wkv.triton_pieces import exp, narrow, product, raw_rows, sums, wide_product


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
    else:  # noqa: RET505  (what follows a return is compiled too)
        return narrow(x * end[None, :], EXACT)


@triton.jit
def lower(x, C: tl.constexpr, diagonal: tl.constexpr):
    """x [C,C] where i < t, or i <= t with the diagonal; zeros elsewhere."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if diagonal:
        return tl.where(i <= t, x, 0.0)
    else:  # noqa: RET505
        return tl.where(i < t, x, 0.0)


@triton.jit
def upper(x, C: tl.constexpr, diagonal: tl.constexpr):
    """x [C,C] where i > t, or i >= t with the diagonal; zeros elsewhere."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if diagonal:
        return tl.where(i >= t, x, 0.0)
    else:  # noqa: RET505
        return tl.where(i > t, x, 0.0)


@triton.jit
def unit_inverse(x, C: tl.constexpr, EXACT: tl.constexpr):
    """(I - x)^-1 of a strictly lower triangular x [C,C], by blocks that double: with D the inverses of the blocks of
    size s on the diagonal and B what lies below them in blocks of size 2s, the next D is D + D B D.

    Nothing larger than the inverses themselves is ever formed, unlike in a power series of x.
    """
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    inverse = tl.where(t == i, 1.0, 0.0) + tl.where(((t >> 1) == (i >> 1)) & (i < t), x, 0.0)
    x = narrow(x, EXACT)
    for level in tl.static_range(1, 6):  # s = 2, 4, 8, 16, 32
        if C >> level > 1:
            below = tl.where(((t >> level + 1) == (i >> level + 1)) & ((t >> level) > (i >> level)), x, 0.0)
            half = product(narrow(inverse, EXACT), below.to(x.dtype), EXACT)
            inverse += product(narrow(half, EXACT), narrow(inverse, EXACT), EXACT)
    return inverse


@triton.jit(do_not_specialize=["T", "H"])
def solve(
    w_ptr, a_ptr, b_ptr, inverse_ptr, starts_ptr, T, H,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """(I - A)^-1 [C,C] of every (chunk, head); one program each."""
    program = tl.program_id(0)
    chunk, head = program // H, program % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    w, a, b = w.to(tl.float32), a.to(tl.float32), b.to(tl.float32)
    before = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    x = lower(wide_product(a * exp(before), tl.trans(b * exp(-before - w)), EXACT), C, False)
    inverse = unit_inverse(x, C, EXACT)
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    at = program.to(tl.int64) * (C * C) + t * C + i
    tl.store(inverse_ptr + at, inverse.to(inverse_ptr.dtype.element_ty))
