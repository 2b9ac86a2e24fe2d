"""Weights by decay inside a chunk of WKV-6 for Triton: sums of log decays that never cancel, whatever the decay.

The pairs of tokens i < t of a chunk are those of its levels s = 1, 2, 4, ...: in a block of 2s tokens, t in the upper
half and i in the lower. The log decay between them is split at the border of the halves: the query reaches back to it,
the key is carried to it, and neither weight exceeds one. At a level one tile holds both, queries above keys.

Levels below 16 stay within blocks of 16 tokens, [C/16,16,...] here: a warp multiplies a block in its registers.
"""

import triton
import triton.language as tl

from wkv.triton_pieces import add_product, load_rows, narrow, power_of_two, product

# The weight of a token decayed by more is zero in fp32; -inf would make NaN of 0 * -inf.
LEAST = tl.constexpr(-120.0)


@triton.jit
def load_decay(ptr, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, first=0):
    """The log decays of a chunk [C,BD], held above LEAST."""
    return tl.maximum(load_rows(ptr, begin, head, length, H, C, D, BD, first), LEAST)


@triton.jit
def weights(pattern, w, EXACT: tl.constexpr):
    """exp(pattern w), [C,BD] or of blocks; by base 2, which takes fewer instructions."""
    return tl.exp2(product(pattern, w, EXACT) * 1.4426950408889634)


@triton.jit
def unit_rows(x, most, EXACT: tl.constexpr):
    """(x with each row divided by a power of two just under most * max |x|, as an operand; those powers [C])."""
    if EXACT:
        return x, tl.max(tl.abs(x), axis=1) * 0.0 + 1.0
    else:
        size, inverse = power_of_two(tl.max(tl.abs(x), axis=1) * most, EXACT)
        return narrow(x * inverse[:, None], EXACT), size


@triton.jit
def spread(x, BK: tl.constexpr, EXACT: tl.constexpr):
    """The operand x [C,BK] laid out over the threads as products are: a shuffle by way of the tensor cores."""
    if EXACT:
        return x
    else:
        i, j = tl.arange(0, BK)[:, None], tl.arange(0, BK)[None, :]
        return narrow(product(x, narrow(tl.where(i == j, 1.0, 0.0), EXACT), EXACT), EXACT)


@triton.jit
def upper(s: tl.constexpr, C: tl.constexpr):
    """Which tokens [C,1] are in the upper half of their block of 2s."""
    return (tl.arange(0, C) & s)[:, None] != 0


@triton.jit
def triangle(LATER: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """0/1 [C,C]: of the tokens of the chunk, those before t; LATER, those after t."""
    t, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if LATER:
        return narrow(tl.where(j > t, 1.0, 0.0), EXACT)
    else:
        return narrow(tl.where(j < t, 1.0, 0.0), EXACT)


@triton.jit
def pattern(TURNED: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """0/1 [C,C] of level C / 2: of the tokens in t's half, those before t in the upper half, after t in the lower.

    TURNED: transposed.
    """
    t, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    early = t >= C // 2
    if TURNED:
        early = t < C // 2
    return narrow(tl.where(((t ^ j) < C // 2) & (t != j) & (early == (j < t)), 1.0, 0.0), EXACT)


@triton.jit
def blocks(x, C: tl.constexpr):
    """[C,D] -> [C/16,16,D]."""
    return x.reshape(C // 16, 16, x.shape[1])


@triton.jit
def upper_of_blocks(s: tl.constexpr, C: tl.constexpr):
    """Which tokens [C/16,16,1] are in the upper half of their block of 2s, s <= 16."""
    t = tl.arange(0, C // 16)[:, None, None] * 16 + tl.arange(0, 16)[None, :, None]
    return (t & s) != 0


@triton.jit
def pattern_of_blocks(s: tl.constexpr, TURNED: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """0/1 [C/16,16,16] of level s <= 16: of the tokens in t's block of s, those before t in upper halves, else after t.

    TURNED: transposed.
    """
    i, j = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    early = upper_of_blocks(s, C)
    if TURNED:
        early = early == 0
    return narrow(tl.where(((i ^ j) < s) & (i != j) & (early == (j < i)), 1.0, 0.0), EXACT)


@triton.jit
def reach_in_blocks(w, s: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr):
    """The weights [C/16,16,BK] of level s <= 16, from w [C/16,16,BK]."""
    return weights(pattern_of_blocks(s, False, C, EXACT), w, EXACT)


@triton.jit
def bits(x):
    """The bits of a 16-bit or 32-bit operand."""
    if x.dtype == tl.float16:
        return x.to(tl.int16, bitcast=True)
    else:
        return x.to(tl.int32, bitcast=True)


@triton.jit
def choose(where, below, change):
    """`below`, with the bits of `change` flipped at `where`: two numbers an instruction, unlike a selection."""
    mask = tl.where(where, -1, 0).to(change.dtype)
    return (bits(below) ^ (change & mask)).to(below.dtype, bitcast=True)


@triton.jit
def squares(x, EXACT: tl.constexpr):
    """x x^T of x [M,BK], or of blocks [C/16,M,BK]; BK in two parts where fp32 would overfill shared memory."""
    if EXACT and x.shape[len(x.shape) - 1] > 64:
        if len(x.shape) == 2:
            a, b = x.reshape(x.shape[0], 2, x.shape[1] // 2).permute(0, 2, 1).split()
            return add_product(product(a, tl.trans(a), EXACT), b, tl.trans(b), EXACT)
        else:
            a, b = x.reshape(x.shape[0], x.shape[1], 2, x.shape[2] // 2).permute(0, 1, 3, 2).split()
            return add_product(product(a, a.permute(0, 2, 1), EXACT), b, b.permute(0, 2, 1), EXACT)
    elif len(x.shape) == 2:
        return product(x, tl.trans(x), EXACT)
    else:
        return product(x, x.permute(0, 2, 1), EXACT)
