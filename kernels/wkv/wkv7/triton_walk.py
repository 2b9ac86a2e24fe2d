"""WKV-7 on Triton, in one pass over each sequence, forward and back: for batches whose heads alone fill the GPU."""

import triton
import triton.language as tl

from wkv.chunk_table import sequence_chunks, tokens_of
from wkv.triton_pieces import (
    add_product,
    exp,
    fresh,
    load_state,
    narrow,
    power_of_two,
    product,
    raw_rows,
    store_rows,
    store_state,
    wide_product,
)
from wkv.wkv7.triton_prepare import decay_before, load_tile, lower, row_sizes, store_tile, to_end, upper
from wkv.wkv7.triton_scan import larger


@triton.jit(do_not_specialize=["T", "H", "log2_e"])
def walk(
    r_ptr, w_ptr, k_ptr, v_ptr, a_ptr, b_ptr, inverse_ptr, s0_ptr, y_ptr, s_ptr, states_ptr, before_ptr, u_ptr,
    size_ptr, r_size_ptr, k_size_ptr, v_size_ptr, starts_ptr, first_ptr, T, H, log2_e,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    STATES: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """What `prepare` and `scan` do together, but for what the backward needs of `prepare`."""
    FINE: tl.constexpr = a_ptr.dtype.element_ty == tl.float16
    owner = tl.program_id(0)
    sequence, head = owner // H, owner % H
    chunk, count = sequence_chunks(sequence, first_ptr, T, C)
    state = load_state(s0_ptr, owner.to(tl.int64), 0, K, V, BK, BV)  # [BK,BV], as every state here
    for j in tl.range(count, disable_licm=True):
        begin, length = tokens_of(sequence, j, chunk, starts_ptr, T, C)
        place = fresh((chunk + j) * H + head)
        begin = fresh(begin)
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
        if KEEP:
            tl.store(v_size_ptr + place * C + tl.arange(0, C), row_sizes(v, EXACT)[0])
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
        a_k = lower(wide_product(a, tl.trans(k), EXACT, FINE), C, False)
        x = add_product(x, narrow(a_k, EXACT), v, EXACT)
        b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
        r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
        u = narrow(product(inverse, narrow(x, EXACT), EXACT), EXACT)
        k_end = to_end(k, k_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        new = product(tl.trans(narrow(k_end, EXACT)), v, EXACT)
        b = b.to(tl.float32) * exp(upto, -log2_e)
        b_end = to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        new = add_product(new, tl.trans(narrow(b_end, EXACT)), u, EXACT)
        state = state * end[:, None] + new * size
        r = r.to(tl.float32)
        r_size, r_inverse = row_sizes(r, EXACT)
        r = r * r_inverse[:, None] * exp(upto, log2_e)
        y = product(narrow(r, EXACT), s, EXACT)
        r_k = lower(wide_product(r, tl.trans(k), EXACT, FINE), C, True)
        y = add_product(y, narrow(r_k, EXACT), v, EXACT)
        r_b = lower(wide_product(r, tl.trans(b), EXACT, FINE), C, True)
        y = add_product(y, narrow(r_b, EXACT), u, EXACT)
        if KEEP:
            store_tile(u_ptr, u, place, C, BV)
            tl.store(r_size_ptr + place * C + tl.arange(0, C), r_size)
            tl.store(k_size_ptr + place * C + tl.arange(0, C), k_size)
        store_rows(y_ptr, y * (r_size * size)[:, None], begin, head, length, H, C, V, BV)
    store_state(s_ptr, state, owner.to(tl.int64), 0, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H", "log2_e"])
def walk_back(
    r_ptr, w_ptr, k_ptr, a_ptr, b_ptr, r_size_ptr, k_size_ptr, inverse_ptr, dy_ptr, ds_ptr, dstates_ptr,
    dv_ptr, ds0_ptr, after_ptr, dx_ptr, size_ptr, dy_size_ptr, starts_ptr, first_ptr, T, H, log2_e,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """What `scan_back` does, from the inputs themselves, the matrices computed transposed:

    dx = I'^T (A_rb^T dy + b_ dS^T), dv = A_rk^T dy + A_ak^T dx + k_ dS^T, and dS D + dy^T r~ + dx^T a~ before.
    """
    FINE: tl.constexpr = a_ptr.dtype.element_ty == tl.float16
    owner = tl.program_id(0)
    sequence, head = owner // H, owner % H
    chunk, count = sequence_chunks(sequence, first_ptr, T, C)
    ds = load_state(ds_ptr, owner.to(tl.int64), 0, K, V, BK, BV)
    for back in tl.range(count, disable_licm=True):
        j = count - 1 - back
        begin, length = tokens_of(sequence, j, chunk, starts_ptr, T, C)
        place = fresh((chunk + j) * H + head)
        begin = fresh(begin)
        w = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
        r = raw_rows(r_ptr, begin, head, length, H, C, K, BK)
        b = raw_rows(b_ptr, begin, head, length, H, C, K, BK)
        dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV)
        inverse = load_tile(inverse_ptr, place, C, C)
        dy = dy.to(tl.float32)
        r_size = tl.load(r_size_ptr + place * C + tl.arange(0, C))
        k_size = tl.load(k_size_ptr + place * C + tl.arange(0, C))
        size, inverse_size = power_of_two(larger(dy, r_size, ds), EXACT)
        tl.store(dy_size_ptr + place * C + tl.arange(0, C), row_sizes(dy, EXACT)[0])
        dy = narrow(dy * (r_size * inverse_size)[:, None], EXACT)
        half = narrow(ds * inverse_size, EXACT)
        store_tile(after_ptr, half, place, BK, BV)
        tl.store(size_ptr + place, size)
        w = w.to(tl.float32)
        upto = decay_before(w, C, EXACT or w_ptr.dtype.element_ty == tl.float32) + w
        end = exp(tl.sum(w, axis=0))
        r = r.to(tl.float32) * (1 / r_size)[:, None] * exp(upto)
        r_half = narrow(r, EXACT)
        b = b.to(tl.float32) * exp(upto, -1.4426950408889634)
        b_r = upper(wide_product(b, tl.trans(r), EXACT, FINE), C, True)
        b_end = to_end(b, b_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        du = product(narrow(b_end, EXACT), half, EXACT)
        a = raw_rows(a_ptr, begin, head, length, H, C, K, BK)
        w_again = raw_rows(w_ptr, begin, head, length, H, C, K, BK)
        k = raw_rows(k_ptr, begin, head, length, H, C, K, BK)
        du = add_product(du, narrow(b_r, EXACT), dy, EXACT)
        dx = narrow(product(tl.trans(inverse), narrow(du, EXACT), EXACT), EXACT)
        a = a.to(tl.float32) * exp(upto - w_again.to(tl.float32), log2_e)
        new = product(tl.trans(r_half), dy, EXACT)
        new = add_product(new, tl.trans(narrow(a, EXACT)), dx, EXACT)
        ds = ds * end[:, None] + new * size
        if dstates_ptr is not None:
            ds += load_state(dstates_ptr, place, 0, K, V, BK, BV)
        k = k.to(tl.float32) * (1 / k_size)[:, None] * exp(upto, -log2_e)
        k_end = to_end(k, k_ptr, end, w, begin, head, length, H, K, BK, C, EXACT)
        dv = product(narrow(k_end, EXACT), half, EXACT)
        k_r = upper(wide_product(k, tl.trans(r), EXACT, FINE), C, True)
        dv = add_product(dv, narrow(k_r, EXACT), dy, EXACT)
        k_a = upper(wide_product(k, tl.trans(a), EXACT, FINE), C, False)
        dv = add_product(dv, narrow(k_a, EXACT), dx, EXACT)
        store_tile(dx_ptr, dx, place, C, BV)
        store_rows(dv_ptr, dv * (k_size * size)[:, None], begin, head, length, H, C, V, BV)
    store_state(ds0_ptr, ds, owner.to(tl.int64), 0, K, V, BK, BV)
