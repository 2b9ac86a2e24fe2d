"""WKV-6 on Triton, from chunk to chunk: states and outputs, in one pass or each for itself; backwards, dS and dV.

The gradients of the states and of v obey the recurrence of the states and of y, run from the end with r and k swapped:
dv_i = sum over t >= i of A[t,i] dy_t + dS k~_i, and the gradient of the state before a chunk is dS D + dY^T r~.
"""

import triton
import triton.language as tl

from wkv.chunk_table import chunk_tokens, sequence_chunks, tokens_of
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
from wkv.wkv6.triton_decay import (
    bits,
    blocks,
    choose,
    load_decay,
    pattern,
    reach_in_blocks,
    spread,
    squares,
    triangle,
    unit_rows,
    upper,
    upper_of_blocks,
    weights,
)


@triton.jit
def _chunk(
    q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BACK: tl.constexpr, OUTPUT: tl.constexpr, STATE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One chunk from `state` [BK,BV]: stores its outputs (OUTPUT), returns the state after it (STATE).

    The queries q are r; BACK, they are k, the keys k are r, and v, y and `state` are dy, dv and dS.
    """
    w = narrow(load_decay(w_ptr, begin, head, length, H, C, K, BK), EXACT)
    k, k_size = unit_rows(load_rows(k_ptr, begin, head, length, H, C, K, BK), 1.0, EXACT)
    v = load_rows(v_ptr, begin, head, length, H, C, V, BV, first) * k_size[:, None]
    size, inverse_size = power_of_two(tl.maximum(largest(state), largest(v)), EXACT)
    v = narrow(v * inverse_size, EXACT)
    old = narrow(state * inverse_size, EXACT)
    k = spread(k, BK, EXACT)
    if STATE:
        to_end = narrow(weights(triangle(not BACK, C, EXACT), w, EXACT), EXACT)
        new = product(tl.trans(k * to_end), v, EXACT)
        state = state * weights(tl.trans(w), tl.full((C, BV), 1.0, w.dtype), EXACT) + new * size
    if OUTPUT:
        ks = tl.arange(0, BK)
        u = tl.load(u_ptr + head * K + ks, mask=ks < K, other=0.0).to(tl.float32)
        most = tl.maximum(tl.max(tl.abs(u), axis=0), 1.0)
        q, q_size = unit_rows(load_rows(q_ptr, begin, head, length, H, C, K, BK), most, EXACT)
        q = spread(q, BK, EXACT)
        own = tl.sum(q.to(tl.float32) * k.to(tl.float32) * u[None, :], axis=1)
        from_start = narrow(weights(triangle(BACK, C, EXACT), w, EXACT), EXACT)
        y = product(q * from_start, old, EXACT)
        y = add_pairs(y, q, w, k, v, own, C, BACK, EXACT)
        store_rows(y_ptr, y * (q_size * size)[:, None], begin, head, length, H, C, V, BV, first)
    return state


@triton.jit
def add_pairs(y, q, w, k, v, own, C: tl.constexpr, BACK: tl.constexpr, EXACT: tl.constexpr):
    """y [C,BV] and what queries read within the chunk: of tokens i < t decayed in between, of their own by `own` [C].

    BACK: of tokens i > t.
    """
    above, below = q, k
    if BACK:
        above, below = k, q
    weight = weights(pattern(False, C, EXACT), w, EXACT)
    change = bits(above) ^ bits(below)
    x = choose(upper(C // 2, C), below, change) * narrow(weight, EXACT)
    far = squares(x, EXACT)
    w, below, change = blocks(w, C), blocks(below, C), blocks(change, C)
    x = choose(upper_of_blocks(16, C), below, change) * narrow(reach_in_blocks(w, 16, C, EXACT), EXACT)
    x = x.reshape(C, q.shape[1])
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    far = tl.where(((t ^ i) & 32) == 0, squares(x, EXACT), far)
    past = (t >> 4) > (i >> 4)
    if BACK:
        past = (t >> 4) < (i >> 4)
    y = add_product(y, narrow(tl.where(past, far, 0.0), EXACT), v, EXACT)

    t, i = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    near = squares(choose(upper_of_blocks(1, C), below, change), EXACT)
    for n in tl.static_range(1, 4):
        x = choose(upper_of_blocks(1 << n, C), below, change) * narrow(reach_in_blocks(w, 1 << n, C, EXACT), EXACT)
        near = tl.where(((t ^ i) & (1 << n)) != 0, squares(x, EXACT), near)
    past = t > i
    if BACK:
        past = t < i
    near = tl.where(past, near, tl.where(t == i, own.reshape(C // 16, 16, 1), 0.0))
    return add_product(blocks(y, C), narrow(near, EXACT), blocks(v, C), EXACT).reshape(y.shape)


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
    sequence, head = owner // H, owner % H
    chunk, count = sequence_chunks(sequence, first_ptr, T, C)
    state = load_state(start_ptr, owner.to(tl.int64), first, K, V, BK, BV)
    for step in tl.range(count, disable_licm=True):
        j = step
        if BACK:
            j = count - 1 - step
        begin, length = tokens_of(sequence, j, chunk, starts_ptr, T, C)
        place = (chunk + j) * H + head
        if KEEP:
            store_state(states_ptr, state, place, first, K, V, BK, BV)
        state = _chunk(
            q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
            K, V, BK, BV, C, BACK, OUTPUT, True, EXACT,
        )  # fmt: skip
        if BACK and more_ptr is not None:
            state += load_state(more_ptr, place, first, K, V, BK, BV)
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
    chunk, head = owner // H, owner % H
    begin, length = chunk_tokens(chunk, starts_ptr, T, C)
    state = load_state(states_ptr, owner.to(tl.int64), first, K, V, BK, BV)
    _chunk(
        q_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
        K, V, BK, BV, C, BACK, True, False, EXACT,
    )  # fmt: skip
