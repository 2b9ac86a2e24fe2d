"""Weights by decay inside a chunk of WKV-6 for Triton: sums of log decays that never cancel, whatever the decay.

The pairs of tokens i < t of a chunk are those of its levels s = 1, 2, 4, ...: in a block of 2s tokens, t in the upper
half and i in the lower. The log decay between them is split at the border of the halves: the query reaches back to it,
the key is carried to it, and neither weight exceeds one. At a level one tile holds both, queries above keys.
"""

import triton
import triton.language as tl

from wkv.triton_pieces import load_rows, narrow, power_of_two, product, sums

# The weight of a token decayed by more is zero in fp32; -inf would make NaN of 0 * -inf.
LEAST = tl.constexpr(-120.0)


@triton.jit
def load_decay(ptr, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr):
    """The log decays of a chunk [C,BD], held above LEAST."""
    return tl.maximum(load_rows(ptr, begin, head, length, H, C, D, BD), LEAST)


@triton.jit
def unit_rows(x, most, EXACT: tl.constexpr):
    """(x with each row divided by a power of two just under most * max |x|, as an operand; those powers [C])."""
    if EXACT:
        return x, tl.max(tl.abs(x), axis=1) * 0.0 + 1.0
    else:  # noqa: RET505  (what follows a return is compiled too)
        size, inverse = power_of_two(tl.max(tl.abs(x), axis=1) * most, EXACT)
        return narrow(x * inverse[:, None], EXACT), size


@triton.jit
def spread(x, BK: tl.constexpr, EXACT: tl.constexpr):
    """The operand x [C,BK] laid out over the threads as products are: a shuffle by way of the tensor cores."""
    if EXACT:
        return x
    else:  # noqa: RET505
        i, j = tl.arange(0, BK)[:, None], tl.arange(0, BK)[None, :]
        return narrow(product(x, narrow(tl.where(i == j, 1.0, 0.0), EXACT), EXACT), EXACT)


@triton.jit
def upper(s: tl.constexpr, C: tl.constexpr):
    """Which tokens [C,1] are in the upper half of their block of 2s."""
    return (tl.arange(0, C) & s)[:, None] != 0


@triton.jit
def pattern(s: tl.constexpr, TURNED: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """0/1 [C,C]: of the tokens of t's half block, those before t where it is the upper half, else those after t.

    TURNED: those after t in the upper half, before t in the lower.
    """
    t, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    early = (t & s) != 0
    if TURNED:
        early = (t & s) == 0
    ones = ((t ^ j) < s) & (t != j) & (early == (j < t))
    return narrow(tl.where(ones, 1.0, 0.0), EXACT)


@triton.jit
def reach(w, s: tl.constexpr, TURNED: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """The weights [C,BK] of level s: from the border of the halves to a query above it, from a key below it to there.

    TURNED, at s = C / 2: from the start of the chunk to a query of the lower half, from a key of the upper half to its
    end.
    """
    return tl.exp2(sums(pattern(s, TURNED, C, EXACT), w, EXACT) * 1.4426950408889634)


@triton.jit
def halves(w, C: tl.constexpr):
    """The log decays [BK] of the two halves of a chunk."""
    high = upper(C // 2, C)
    return tl.sum(tl.where(high, 0.0, w), axis=0), tl.sum(tl.where(high, w, 0.0), axis=0)


@triton.jit
def edge(inner, outer, lower_log, upper_log, END: tl.constexpr, C: tl.constexpr):
    """The weights [C,BK] from the start of the chunk to each query, or, END, from each key to the end of the chunk."""
    if END:
        return tl.where(upper(C // 2, C), outer, inner * tl.exp(upper_log)[None, :])
    else:  # noqa: RET505
        return tl.where(upper(C // 2, C), inner * tl.exp(lower_log)[None, :], outer)


@triton.jit
def tile(above, below, weight, s: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """The tile [C,BK] of level s, as an operand: the weighed rows of `above` in the upper halves, else of `below`."""
    return narrow(tl.where(upper(s, C), above, below).to(tl.float32) * weight, EXACT)


@triton.jit
def square(x, EXACT: tl.constexpr):
    """x x^T of a level's tile: right where that level is the highest bit in which t and i differ."""
    return product(x, tl.trans(x), EXACT)
