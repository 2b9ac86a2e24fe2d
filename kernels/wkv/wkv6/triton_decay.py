"""Weights by decay inside a chunk of WKV-6 for Triton: sums of log decays that never cancel, whatever the decay.

The pairs of tokens i < t of a chunk are those of its levels s = 1, 2, 4, ...: in a block of 2s tokens, t in the upper
half and i in the lower. The log decay between them is split at the border of the halves: the query reaches back to it,
the key is carried to it, and neither weight exceeds one.
"""

import triton
import triton.language as tl

from wkv.triton_pieces import load_rows, narrow, sums

# The weight of a token decayed by more is zero in fp32; -inf would make NaN of 0 * -inf.
LEAST = tl.constexpr(-120.0)


@triton.jit
def load_decay(ptr, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, EXACT: tl.constexpr):
    """The log decays of a chunk [C,BD], held above LEAST: as an operand, and in fp32."""
    w = tl.maximum(load_rows(ptr, begin, head, length, H, C, D, BD), LEAST)
    return narrow(w, EXACT), w


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

    TURNED, at s = C / 2: from the start of the chunk to a query of the lower half, from a key of the upper half to the end.
    """
    return tl.exp(sums(pattern(s, TURNED, C, EXACT), w, EXACT))


@triton.jit
def halves(w, C: tl.constexpr):
    """The log decays [BK] of the two halves of a chunk."""
    high = upper(C // 2, C)
    return tl.sum(tl.where(high, 0.0, w), axis=0), tl.sum(tl.where(high, w, 0.0), axis=0)
