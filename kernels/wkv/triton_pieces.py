"""What the chunked Triton kernels share: masked tiles, scales that are powers of two, and products of a set precision.

Two precisions. EXACT (fp32 inputs): every product in three tf32 products, about 1e-6. Otherwise (16-bit inputs): fp16
operands of at most about one, with the scale of the tile in fp32 beside them, or tf32 where the operands span more than
fp16 can; both keep 11 bits, and every sum is fp32.
"""

import triton
import triton.language as tl
from triton import knobs

# Triton's interpreter knows no assembly.
INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))


@triton.jit
def exp(x, log2_e=1.4426950408889634):
    """e^x to two units in the last place; what would be denormal is 0.

    The compiler merges equal calls and keeps what they give in registers, however far apart they are: unless `log2_e`
    is a number that it cannot know.
    """
    if INTERPRETED:
        return tl.exp2(x * log2_e)
    else:  # (what follows a return is compiled too)
        return tl.inline_asm_elementwise(
            "{.reg .f32 y; mul.f32 y, $1, $2; ex2.approx.ftz.f32 $0, y;}", "=f,f,f", [x, log2_e],
            dtype=tl.float32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def settle(x):
    """x, worked out here: sums that are put off keep all their terms in registers."""
    if INTERPRETED:
        return x
    else:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1)


@triton.jit
def fresh(x):
    """The scalar x (int64), as if nothing were known of it: what is worked out of it is not kept from loop to loop."""
    if INTERPRETED:
        return x
    else:
        return tl.inline_asm_elementwise("mov.b64 $0, $1;", "=l,l", [x], dtype=tl.int64, is_pure=False, pack=1)


@triton.jit
def raw_rows(ptr, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, first=0):
    """`load_rows` without the upcast: several loads are then under way before the first is waited for."""
    rows, columns = tl.arange(0, C), first + tl.arange(0, BD)
    ptr += (begin * H + head) * D
    mask = (rows < length)[:, None] & (columns < D)[None, :]
    return tl.load(ptr + rows[:, None] * (H * D) + columns[None, :], mask=mask, other=0.0)


@triton.jit
def load_rows(ptr, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, first=0):
    """Columns `first` to `first` + BD of `length` tokens of one head of [N,H,D]: a tile [C,BD], fp32, zeros beyond."""
    rows, columns = tl.arange(0, C), first + tl.arange(0, BD)
    ptr += (begin * H + head) * D
    mask = (rows < length)[:, None] & (columns < D)[None, :]
    return tl.load(ptr + rows[:, None] * (H * D) + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_rows(ptr, x, begin, head, length, H, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, first=0):
    """The reverse of `load_rows`, in the dtype of the tensor."""
    rows, columns = tl.arange(0, C), first + tl.arange(0, BD)
    ptr += (begin * H + head) * D
    mask = (rows < length)[:, None] & (columns < D)[None, :]
    tl.store(ptr + rows[:, None] * (H * D) + columns[None, :], x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def load_state(ptr, place, first, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr):
    """Value rows `first` to `first` + BV of state number `place` of [N,V,K], transposed: [BK,BV], zeros beyond."""
    ks, vs = tl.arange(0, BK), first + tl.arange(0, BV)
    mask = (ks < K)[:, None] & (vs < V)[None, :]
    return tl.load(ptr + place * (V * K) + vs[None, :] * K + ks[:, None], mask=mask, other=0.0)


@triton.jit
def store_state(ptr, x, place, first, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr):
    """The reverse of `load_state`."""
    ks, vs = tl.arange(0, BK), first + tl.arange(0, BV)
    mask = (ks < K)[:, None] & (vs < V)[None, :]
    tl.store(ptr + place * (V * K) + vs[None, :] * K + ks[:, None], x, mask=mask)


@triton.jit
def largest(x):
    """max |x| over a tile."""
    return tl.max(tl.max(tl.abs(x), axis=1), axis=0)


@triton.jit
def power_of_two(x, EXACT: tl.constexpr):
    """(p, 1 / p): the power of two just under x >= 0, 2^-90 at least; ones where products are EXACT.

    What is smaller than 2^-90, or zero, must leave room: 1 / p is multiplied by the sizes of other operands.
    """
    if EXACT:
        one = tl.where(x >= 0, 1.0, 1.0)
        return one, one
    else:
        bits = x.to(tl.int32, bitcast=True) & 0x7F800000
        bits = tl.minimum(tl.maximum(bits, 37 << 23), 253 << 23)
        return bits.to(tl.float32, bitcast=True), ((254 << 23) - bits).to(tl.float32, bitcast=True)


@triton.jit
def narrow(x, EXACT: tl.constexpr):
    """An operand as `product` takes it: fp16, or fp32 as it is where products are EXACT."""
    if EXACT:
        return x
    else:
        return x.to(tl.float16)


@triton.jit
def product(x, y, EXACT: tl.constexpr):
    """x @ y of operands that went through `narrow`."""
    if EXACT:
        return tl.dot(x, y, input_precision="tf32x3")
    else:
        return tl.dot(x, y)


@triton.jit
def add_product(z, x, y, EXACT: tl.constexpr):
    """z + x @ y of operands that went through `narrow`."""
    if EXACT:
        return tl.dot(x, y, acc=z, input_precision="tf32x3")
    else:
        return tl.dot(x, y, acc=z)


@triton.jit
def rounded(x):
    """x rounded to tf32: the tensor cores would cut off what it does not hold, which costs twice the error."""
    if INTERPRETED:
        return x
    else:
        return tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def wide_product(x, y, EXACT: tl.constexpr, FINE: tl.constexpr):
    """x @ y of fp32 operands of any range: tf32, or three of it; FINE: rounded to it, where less is lost otherwise."""
    if EXACT:
        return tl.dot(x, y, input_precision="tf32x3")
    elif FINE:
        return tl.dot(rounded(x), rounded(y), input_precision="tf32")
    else:
        return tl.dot(x, y, input_precision="tf32")


@triton.jit
def sums(pattern, x, EXACT: tl.constexpr):
    """pattern @ x for a pattern of -1, 0 and 1: sums over tokens, of values whose 16-bit form is exact unless EXACT."""
    if EXACT:
        return tl.dot(pattern, x, input_precision="tf32x3")
    else:
        return tl.dot(pattern.to(tl.float16), x.to(tl.float16))


@triton.jit
def fine_sums(pattern, x, EXACT: tl.constexpr):
    """`sums` of values of any range that may cancel: 16 bits of each are kept, 22 where products are EXACT."""
    if EXACT or INTERPRETED:
        return tl.dot(pattern, x, input_precision="tf32x3")
    else:
        pattern = pattern.to(tl.bfloat16)
        high = x.to(tl.bfloat16)
        return tl.dot(pattern, (x - high.to(tl.float32)).to(tl.bfloat16), acc=tl.dot(pattern, high))
