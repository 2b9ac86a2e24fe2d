"""WKV-7 on Triton, from chunk to chunk: the states and the outputs, and on the way back their gradients and dv."""

import triton
import triton.language as tl

from wkv.chunk_table import sequence_chunks, tokens_of
from wkv.triton_pieces import (
    add_product,
    load_state,
    narrow,
    power_of_two,
    product,
    raw_rows,
    store_rows,
    store_state,
)
from wkv.wkv7.triton_prepare import load_tile, row_sizes, store_tile


@triton.jit
def larger(x, sizes, state):
    """The largest element of rows x in units of `sizes`, and of a state."""
    return tl.maximum(tl.max(tl.max(tl.abs(x), axis=1) * sizes, axis=0), tl.max(tl.max(tl.abs(state), axis=1), axis=0))


@triton.jit(do_not_specialize=["T", "H"])
def scan(
    q_ptr, p_ptr, g_ptr, f_ptr, removal_ptr, reading_ptr, decay_ptr, r_size_ptr, k_size_ptr, v_size_ptr, v_ptr, s0_ptr,
    y_ptr, s_ptr, states_ptr, before_ptr, u_ptr, size_ptr, starts_ptr, first_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    STATES: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk over the chunks of BV value rows of one (sequence, head).

    STATES stores the state before each; KEEP what the backward needs: that state [K,V] and u in units of `size`, of one
    tile of BV >= V rows.
    """
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    sequence, head = owner // H, owner % H
    chunk, count = sequence_chunks(sequence, first_ptr, T, C)
    tokens = tl.arange(0, C)
    state = load_state(s0_ptr, owner.to(tl.int64), first, K, V, BK, BV)  # [BK,BV], as every state here
    for j in tl.range(count, disable_licm=True):
        place = (chunk + j) * H + head
        begin, length = tokens_of(sequence, j, chunk, starts_ptr, T, C)
        q = load_tile(q_ptr, place, C, BK)
        p = load_tile(p_ptr, place, C, C)
        g = load_tile(g_ptr, place, BK, BK)
        f = load_tile(f_ptr, place, C, BK)
        v = raw_rows(v_ptr, begin, head, length, H, C, V, BV, first)
        decay = tl.load(decay_ptr + place * BK + tl.arange(0, BK))
        r_size = tl.load(r_size_ptr + place * C + tokens)
        k_size = tl.load(k_size_ptr + place * C + tokens)
        if KEEP:
            w = load_tile(removal_ptr, place, C, BK)
            r = load_tile(reading_ptr, place, C, C)
        if STATES:
            store_state(states_ptr, state, place, first, K, V, BK, BV)
        v = v.to(tl.float32)
        size, inverse_size = power_of_two(larger(v, k_size, state), EXACT)
        if KEEP:
            tl.store(v_size_ptr + place * C + tokens, row_sizes(v, EXACT)[0])
        v = narrow(v * (k_size * inverse_size)[:, None], EXACT)
        s = narrow(state * inverse_size, EXACT)
        new = product(g, s, EXACT)
        new = add_product(new, tl.trans(f), v, EXACT)
        y = product(q, s, EXACT)
        y = add_product(y, p, v, EXACT)
        state = state * decay[:, None] + new * size
        if KEEP:
            u = product(w, s, EXACT)
            u = add_product(u, r, v, EXACT)
            store_tile(u_ptr, u, place, C, BV)
            store_tile(before_ptr, s, place, BK, BV)
            tl.store(size_ptr + place, size)
        store_rows(y_ptr, y * (r_size * size)[:, None], begin, head, length, H, C, V, BV, first)
    store_state(s_ptr, state, owner.to(tl.int64), first, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def scan_back(
    q_ptr, p_ptr, g_ptr, f_ptr, m_ptr, n_ptr, decay_ptr, r_size_ptr, k_size_ptr, dy_ptr, ds_ptr, dstates_ptr,
    dv_ptr, ds0_ptr, after_ptr, dx_ptr, size_ptr, dy_size_ptr, starts_ptr, first_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk back over the chunks of one (sequence, head), storing the gradient of the state after each [K,V] and dx.

    dv = P^T dy + F dS^T, and the gradient of the state before is dS D + dS G + dy^T Q (plus `dstates`, where the states
    before the chunks were themselves of use).
    """
    owner = tl.program_id(0)
    first = 0
    sequence, head = owner // H, owner % H
    chunk, count = sequence_chunks(sequence, first_ptr, T, C)
    tokens = tl.arange(0, C)
    ds = load_state(ds_ptr, owner.to(tl.int64), first, K, V, BK, BV)
    for back in tl.range(count, disable_licm=True):
        j = count - 1 - back
        place = (chunk + j) * H + head
        begin, length = tokens_of(sequence, j, chunk, starts_ptr, T, C)
        q = load_tile(q_ptr, place, C, BK)
        p = load_tile(p_ptr, place, C, C)
        g = load_tile(g_ptr, place, BK, BK)
        f = load_tile(f_ptr, place, C, BK)
        dy = raw_rows(dy_ptr, begin, head, length, H, C, V, BV, first)
        decay = tl.load(decay_ptr + place * BK + tl.arange(0, BK))
        r_size = tl.load(r_size_ptr + place * C + tokens)
        k_size = tl.load(k_size_ptr + place * C + tokens)
        m = load_tile(m_ptr, place, C, C)
        n = load_tile(n_ptr, place, C, BK)
        dy = dy.to(tl.float32)
        size, inverse_size = power_of_two(larger(dy, r_size, ds), EXACT)
        tl.store(dy_size_ptr + place * C + tokens, row_sizes(dy, EXACT)[0])
        dy = narrow(dy * (r_size * inverse_size)[:, None], EXACT)
        half = narrow(ds * inverse_size, EXACT)
        new = product(tl.trans(g), half, EXACT)
        new = add_product(new, tl.trans(q), dy, EXACT)
        dv = product(f, half, EXACT)
        dv = add_product(dv, tl.trans(p), dy, EXACT)
        dx = product(n, half, EXACT)
        dx = add_product(dx, tl.trans(m), dy, EXACT)
        ds = ds * decay[:, None] + new * size
        store_tile(after_ptr, half, place, BK, BV)
        store_tile(dx_ptr, dx, place, C, BV)
        tl.store(size_ptr + place, size)
        if dstates_ptr is not None:
            ds += load_state(dstates_ptr, place, first, K, V, BK, BV)
        store_rows(dv_ptr, dv * (k_size * size)[:, None], begin, head, length, H, C, V, BV, first)
    store_state(ds0_ptr, ds, owner.to(tl.int64), first, K, V, BK, BV)
