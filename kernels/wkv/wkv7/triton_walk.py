"""WKV-7 on Triton, forward in one pass over each sequence: for batches whose heads alone fill the GPU."""

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
from wkv.wkv7.triton_prepare import decay_before, load_tile, lower, row_sizes, store_tile, to_end
from wkv.wkv7.triton_scan import larger


@triton.jit(do_not_specialize=["T", "H", "log2_e"])
def walk(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, s0_ptr, y_ptr, s_ptr, states_ptr, before_ptr, u_ptr,
    size_ptr, starts_ptr, first_ptr, T, H, log2_e,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    STATES: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """What `prepare` and `scan` do together, but for what the backward needs of `prepare`."""
    owner = tl.program_id(0)
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    state = load_state(s0_ptr, owner.to(tl.int64), 0, K, V, BK, BV)  # [BK,BV], as every state here
    for j in range(count):
        begin, length = chunk_tokens(chunk + j, starts_ptr, T, C)
        place = (chunk + j) * H + head
        w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
        a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
        k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
        v = raw_rows(v_ptr, begin, head, length, H, C, V, BV)
        inverse = load_tile(inverse_ptr, place, C, C)
        if STATES:
            store_state(states_ptr, state, place, 0, K, V, BK, BV)
        v = v.to(tl.float32)
        k_size, k_inverse = row_sizes(k.to(tl.float32), EXACT)
        size, inverse_size = power_of_two(larger(v, k_size, state), EXACT)
        v = narrow(v * (k_size * inverse_size)[:, None], EXACT)
        s = narrow(state * inverse_size, EXACT)
        if KEEP:
            store_tile(before_ptr, s, place, BK, BV)
            tl.store(size_ptr + place, size)
        w = w.to(tl.float32)
        upto = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32) + w
        end = exp(tl.sum(w, axis=0))
        a = a.to(tl.float32) * exp(upto - w)
        k = k.to(tl.float32) * k_inverse[:, None] * exp(upto, -1.4426950408889634)
        x = product(narrow(a, EXACT), s, EXACT)
        a_k = lower(wide_product(a, tl.trans(k), EXACT), C, False)
        x = add_product(x, narrow(a_k, EXACT), v, EXACT)
        b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
        u = narrow(product(inverse, narrow(x, EXACT), EXACT), EXACT)
        k_end = to_end(k, k_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        new = product(tl.trans(narrow(k_end, EXACT)), v, EXACT)
        r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
        b = b.to(tl.float32) * exp(upto, -log2_e)
        b_end = to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        new = add_product(new, tl.trans(narrow(b_end, EXACT)), u, EXACT)
        state = state * end[:, None] + new * size
        r = r.to(tl.float32)
        r_size, r_inverse = row_sizes(r, EXACT)
        r = r * r_inverse[:, None] * exp(upto, log2_e)
        y = product(narrow(r, EXACT), s, EXACT)
        r_k = lower(wide_product(r, tl.trans(k), EXACT), C, True)
        y = add_product(y, narrow(r_k, EXACT), v, EXACT)
        r_b = lower(wide_product(r, tl.trans(b), EXACT), C, True)
        y = add_product(y, narrow(r_b, EXACT), u, EXACT)
        if KEEP:
            store_tile(u_ptr, u, place, C, BV)
        store_rows(y_ptr, y * (r_size * size)[:, None], begin, head, length, H, C, V, BV)
    store_state(s_ptr, state, owner.to(tl.int64), 0, K, V, BK, BV)
