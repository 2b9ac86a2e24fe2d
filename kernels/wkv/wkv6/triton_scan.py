"""WKV-6 on Triton, from chunk to chunk: states and outputs, in one pass or each for itself; backwards, dS and dV.

The gradients of the states and of v obey the recurrence of the states and of y, run from the end with r and k swapped:
dv_i = sum over t >= i of A[t,i] dy_t + dS k~_i, and the gradient of the state before a chunk is dS D + dY^T r~.
"""

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
)
from wkv.wkv6.triton_decay import edge, halves, load_decay, reach, spread, square, tile, unit_rows, upper


@triton.jit
def _chunk(
    q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACK: tl.constexpr, OUTPUT: tl.constexpr, STATE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One chunk from `state` [BK,BV]: stores its outputs (OUTPUT), returns the state after it (STATE).

    The queries q are r; BACK, they are k, the keys k are r, and v, y and `state` are dy, dv and dS.
    """
    log = load_decay(w_ptr, begin, head, length, H, C, K, BK)
    w = narrow(log, EXACT)
    lower_log, upper_log = halves(log, C)  # [BK]
    k, k_size = unit_rows(load_rows(k_ptr, begin, head, length, H, C, K, BK), 1.0, EXACT)
    v = load_rows(v_ptr, begin, head, length, H, C, V, BV, first) * k_size[:, None]
    size, inverse_size = power_of_two(tl.maximum(largest(state), largest(v)), EXACT)
    v = narrow(v * inverse_size, EXACT)
    old = narrow(state * inverse_size, EXACT)
    k = spread(k, BK, EXACT)
    inner, outer = reach(w, C // 2, False, C, EXACT), reach(w, C // 2, True, C, EXACT)
    if STATE:
        new = product(tl.trans(narrow(k.to(tl.float32) * edge(inner, outer, lower_log, upper_log, not BACK, C), EXACT)), v, EXACT)
        state = state * tl.exp(lower_log + upper_log)[:, None] + new * size
    if OUTPUT:
        ks = tl.arange(0, BK)
        u = tl.load(u_ptr + head * K + ks, mask=ks < K, other=0.0).to(tl.float32)
        most = tl.maximum(tl.max(tl.abs(u), axis=0), 1.0)
        q, q_size = unit_rows(load_rows(q_ptr, begin, head, length, H, C, K, BK), most, EXACT)
        q = spread(q, BK, EXACT)
        reading = narrow(q.to(tl.float32) * edge(inner, outer, lower_log, upper_log, BACK, C), EXACT)
        y = product(reading, old, EXACT)
        own = tl.sum(q.to(tl.float32) * k.to(tl.float32) * u[None, :], axis=1)
        y = add_product(y, narrow(pairs(q, w, k, own, inner, C, BACK, EXACT), EXACT), v, EXACT)
        store_rows(y_ptr, y * (q_size * size)[:, None], begin, head, length, H, C, V, BV, first)
    return state


@triton.jit
def pairs(q, w, k, own, inner, C: tl.constexpr, BACK: tl.constexpr, EXACT: tl.constexpr):
    """[C,C]: what the query of token t reads of the key of token i, decayed in between; of its own `own` [C].

    Zero where i > t, or, BACK, where i < t. `inner`: the weights of level C / 2.
    """
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    above, below = q, k
    if BACK:
        above, below = k, q
    found = square(tile(above, below, inner, C // 2, C, EXACT), EXACT)
    for n in tl.static_range(1, 5):
        x = tile(above, below, reach(w, C >> n + 1, False, C, EXACT), C >> n + 1, C, EXACT)
        found = tl.where(((t ^ i) & (C - (C >> n))) == 0, square(x, EXACT), found)
    found = tl.where(((t ^ i) & (C - 2)) == 0, square(tl.where(upper(1, C), above, below), EXACT), found)
    past = t > i
    if BACK:
        past = t < i
    return tl.where(past, found, tl.where(t == i, own[:, None], 0.0))


@triton.jit(do_not_specialize=["T", "H"])
def scan(
    q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, start_ptr, more_ptr, y_ptr, end_ptr, states_ptr, starts_ptr, first_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACK: tl.constexpr, OUTPUT: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Walk over the chunks of BV value rows of one (sequence, head); KEEP stores the state before each.

    BACK, from the last chunk to the first, with the arguments of `_chunk` turned, and `more` [chunks,H,V,K] or None is
    added to the gradients of the states before the chunks.
    """
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    head = owner % H
    chunk, count = sequence_chunks(owner // H, first_ptr, T, C)
    if BACK:
        chunk += count - 1
    state = load_state(start_ptr, owner.to(tl.int64), first, K, V, BK, BV)
    for _ in tl.range(count, disable_licm=True):
        begin, length = chunk_tokens(chunk, starts_ptr, T, C)
        place = chunk * H + head
        if KEEP:
            store_state(states_ptr, state, place, first, K, V, BK, BV)
        state = _chunk(
            q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
            K, V, BK, BV, C, BACK, OUTPUT, True, EXACT,
        )  # fmt: skip
        if BACK:
            if more_ptr is not None:
                state += load_state(more_ptr, place, first, K, V, BK, BV)
            chunk -= 1
        else:
            chunk += 1
    store_state(end_ptr, state, owner.to(tl.int64), first, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def output(
    q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, states_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The outputs of BV value rows of every (chunk, head) from the states that `scan` kept."""
    tiles: tl.constexpr = (V + BV - 1) // BV
    program = tl.program_id(0)
    first = (program % tiles) * BV
    owner = program // tiles
    chunk, head = (owner // H).to(tl.int64), owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    state = load_state(states_ptr, chunk * H + head, first, K, V, BK, BV)
    _chunk(
        q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
        K, V, BK, BV, C, BACK, True, False, EXACT,
    )  # fmt: skip
