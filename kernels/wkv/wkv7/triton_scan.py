"""WKV-7 forward on Triton: the states from chunk to chunk, and the outputs, in one pass or each for itself."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens, sequence_chunks
from wkv.triton_pieces import (
    add_product,
    exp,
    load_state,
    narrow,
    power_of_two,
    product,
    raw_rows,
    store_rows,
    store_state,
    wide_product,
)
from wkv.wkv7.triton_solve import decay_before, lower, to_end


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
def row_sizes(x, EXACT: tl.constexpr):
    """(p, 1 / p) [C]: the power of two under the largest element of each row."""
    return power_of_two(tl.max(tl.abs(x), axis=1), EXACT)


@triton.jit
def chunk_forward(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, u_ptr, size_ptr, state, begin, length, place, head, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    OUTPUT: tl.constexpr, STATE: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One chunk from `state` [BK,BV]: stores its outputs (OUTPUT) and its removals (KEEP), returns the next (STATE).

    Products are of operands near 1: k and r in units of each token's own size, v, U and the state in units of `size`.
    """
    w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
    a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
    b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
    k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
    v = raw_rows(v_ptr, begin, head, length, H, C, V, BV)
    inverse = load_tile(inverse_ptr, place, C, C)
    if OUTPUT:
        r = raw_rows(r_ptr, begin, head, length, H, C, K, BK).to(tl.float32)
    w, a, b, k, v = w.to(tl.float32), a.to(tl.float32), b.to(tl.float32), k.to(tl.float32), v.to(tl.float32)
    before = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    k_size, k_inverse = row_sizes(k, EXACT)
    largest = tl.max(tl.max(tl.abs(v), axis=1) * k_size, axis=0)
    largest = tl.maximum(largest, tl.max(tl.max(tl.abs(state), axis=1), axis=0))
    size, inverse_size = power_of_two(largest, EXACT)
    v = narrow(v * (k_size * inverse_size)[:, None], EXACT)
    s = narrow(state * inverse_size, EXACT)

    fade = exp(-before - w)
    k = k * k_inverse[:, None] * fade
    b = b * fade
    a = a * exp(before)
    a_k = lower(wide_product(a, tl.trans(k), EXACT), C, False)
    x = product(narrow(a, EXACT), s, EXACT)
    x = add_product(x, narrow(a_k, EXACT), v, EXACT)
    u = narrow(product(inverse, narrow(x, EXACT), EXACT), EXACT)
    if KEEP:
        store_tile(u_ptr, u, place, C, BV)
        tl.store(size_ptr + place, size)
    if OUTPUT:
        r_size, r_inverse = row_sizes(r, EXACT)
        r = r * r_inverse[:, None] * exp(before + w)
        y = product(narrow(r, EXACT), s, EXACT)
        r_b = lower(wide_product(r, tl.trans(b), EXACT), C, True)
        y = add_product(y, narrow(r_b, EXACT), u, EXACT)
        r_k = lower(wide_product(r, tl.trans(k), EXACT), C, True)
        y = add_product(y, narrow(r_k, EXACT), v, EXACT)
        store_rows(y_ptr, y * (r_size * size)[:, None], begin, head, length, H, C, V, BV)
    if STATE:
        end = exp(tl.sum(w, axis=0))
        b_end = to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        new = product(tl.trans(b_end), u, EXACT)
        k_end = to_end(k, k_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        new = add_product(new, tl.trans(k_end), v, EXACT)
        state = state * end[:, None] + new * size
    return state


@triton.jit(do_not_specialize=["T", "H"])
def scan(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, s0_ptr, y_ptr, s_ptr, states_ptr, u_ptr, size_ptr,
    starts_ptr, first_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    OUTPUT: tl.constexpr, STATES: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk over the chunks of one (sequence, head); STATES stores the state before each, KEEP what backward needs."""
    owner = tl.program_id(0)
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    state = load_state(s0_ptr, owner.to(tl.int64), 0, K, V, BK, BV)
    for _ in range(count):
        begin, length = chunk_tokens(chunk, starts_ptr, T, C)
        place = chunk * H + head
        if STATES:
            store_state(states_ptr, state, place, 0, K, V, BK, BV)
        state = chunk_forward(
            r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, u_ptr, size_ptr, state,
            begin, length, place, head, H, K, V, BK, BV, C, OUTPUT, True, KEEP, EXACT,
        )  # fmt: skip
        chunk += 1
    store_state(s_ptr, state, owner.to(tl.int64), 0, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def output(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, states_ptr, u_ptr, size_ptr, starts_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The outputs of every (chunk, head) from the states before the chunks."""
    owner = tl.program_id(0)
    chunk, head = (owner // H).to(tl.int64), owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = owner.to(tl.int64)
    state = load_state(states_ptr, place, 0, K, V, BK, BV)
    chunk_forward(
        r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, u_ptr, size_ptr, state,
        begin, length, place, head, H, K, V, BK, BV, C, True, False, KEEP, EXACT,
    )  # fmt: skip
