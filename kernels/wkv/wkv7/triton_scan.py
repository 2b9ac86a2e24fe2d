"""WKV-7 forward on Triton: the states from chunk to chunk, and the outputs, in one pass or each for itself."""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens, sequence_chunks
from wkv.triton_pieces import (
    add_product,
    largest,
    load_rows,
    load_state,
    narrow,
    power_of_two,
    product,
    store_rows,
    store_state,
    wide_product,
)
from wkv.wkv7.triton_solve import centred, lower


@triton.jit
def load_inverse(ptr, place, C: tl.constexpr):
    """(I - A)^-1 [C,C] of one (chunk, head), as `solve` stored it."""
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    return tl.load(ptr + place * (C * C) + t * C + i)


@triton.jit
def _chunk(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, state, begin, length, place, head, H, first,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    OUTPUT: tl.constexpr, STATE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One chunk from `state` [BK,BV]: stores its outputs (OUTPUT), returns the state after it (STATE)."""
    w = load_rows(w_ptr, begin, head, length, H, C, K, BK)
    a = load_rows(a_ptr, begin, head, length, H, C, K, BK)
    b = load_rows(b_ptr, begin, head, length, H, C, K, BK)
    k = load_rows(k_ptr, begin, head, length, H, C, K, BK)
    v = load_rows(v_ptr, begin, head, length, H, C, V, BV, first)
    before, upto = centred(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32)
    left = tl.arange(0, C)[:, None] < C // 2
    middle = tl.sum(tl.where(left, w, 0.0), axis=0)  # [BK] log decay of the first half, and of the second
    rest = tl.sum(tl.where(left, 0.0, w), axis=0)

    k_size, k_inverse = power_of_two(largest(k), EXACT)
    size, inverse_size = power_of_two(tl.maximum(largest(state), largest(v) * k_size), EXACT)
    v = narrow(v * (k_size * inverse_size), EXACT)
    s = narrow(state * inverse_size, EXACT)

    fade = tl.exp(-upto)
    k = k * (fade * k_inverse)
    b = b * fade
    a = a * tl.exp(before)
    a_k = lower(wide_product(a, tl.trans(k), EXACT), C, False)
    x = product(narrow(a * tl.exp(middle)[None, :], EXACT), s, EXACT)
    x = add_product(x, narrow(a_k, EXACT), v, EXACT)
    u = narrow(product(load_inverse(inverse_ptr, place, C), narrow(x, EXACT), EXACT), EXACT)
    if OUTPUT:
        r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
        r_size, r_inverse = power_of_two(largest(r), EXACT)
        r = r * (tl.exp(upto) * r_inverse)
        y = product(narrow(r * tl.exp(middle)[None, :], EXACT), s, EXACT)
        r_b = lower(wide_product(r, tl.trans(b), EXACT), C, True)
        y = add_product(y, narrow(r_b, EXACT), u, EXACT)
        r_k = lower(wide_product(r, tl.trans(k), EXACT), C, True)
        y = add_product(y, narrow(r_k, EXACT), v, EXACT)
        store_rows(y_ptr, y * (size * r_size), begin, head, length, H, C, V, BV, first)
    if STATE:
        end = tl.exp(rest)[None, :]
        new = product(tl.trans(narrow(b * end, EXACT)), u, EXACT)
        new = add_product(new, tl.trans(narrow(k * end, EXACT)), v, EXACT)
        state = state * tl.exp(middle + rest)[:, None] + new * size
    return state


@triton.jit(do_not_specialize=["T", "H"])
def scan(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, s0_ptr, y_ptr, s_ptr, states_ptr, starts_ptr, first_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    OUTPUT: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk over the chunks of BV value rows of one (sequence, head); KEEP stores the state before each."""
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    state = load_state(s0_ptr, owner.to(tl.int64), first, K, V, BK, BV)
    for _ in range(count):
        begin, length = chunk_tokens(chunk, starts_ptr, T, C)
        place = chunk * H + head
        if KEEP:
            store_state(states_ptr, state, place, first, K, V, BK, BV)
        state = _chunk(
            r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, state, begin, length, place, head, H, first,
            K, V, BK, BV, C, OUTPUT, True, EXACT,
        )  # fmt: skip
        chunk += 1
    store_state(s_ptr, state, owner.to(tl.int64), first, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def output(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, states_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The outputs of BV value rows of every (chunk, head) from the states that `scan` kept."""
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    chunk, head = (owner // H).to(tl.int64), owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    place = chunk * H + head
    state = load_state(states_ptr, place, first, K, V, BK, BV)
    _chunk(
        r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, y_ptr, state, begin, length, place, head, H, first,
        K, V, BK, BV, C, True, False, EXACT,
    )  # fmt: skip
