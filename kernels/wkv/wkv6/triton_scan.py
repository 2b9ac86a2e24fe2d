"""WKV-6 forward on Triton: the states from chunk to chunk, and the outputs, in one pass or each for itself."""

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
from wkv.wkv6.triton_decay import halves, load_decay, reach, upper


@triton.jit
def _chunk(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    OUTPUT: tl.constexpr, STATE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One chunk from `state` [BK,BV]: stores its outputs (OUTPUT), returns the state after it (STATE)."""
    w, log = load_decay(w_ptr, begin, head, length, H, C, K, BK, EXACT)
    k = load_rows(k_ptr, begin, head, length, H, C, K, BK)
    v = load_rows(v_ptr, begin, head, length, H, C, V, BV, first)
    k_size, k_inverse = power_of_two(largest(k), EXACT)
    size, inverse_size = power_of_two(tl.maximum(largest(state), largest(v) * k_size), EXACT)
    lower_log, upper_log = halves(log, C)  # [BK]
    high = upper(C // 2, C)
    operand = narrow(v * (k_size * inverse_size), EXACT)
    outer = reach(w, C // 2, True, C, EXACT)
    inner = reach(w, C // 2, False, C, EXACT)
    if OUTPUT:
        r = load_rows(r_ptr, begin, head, length, H, C, K, BK)
        ks = tl.arange(0, BK)
        u = tl.load(u_ptr + head * K + ks, mask=ks < K, other=0.0).to(tl.float32)
        y = tl.sum(r * k * u[None, :], axis=1)[:, None] * v
        r_size, r_inverse = power_of_two(largest(r), EXACT)
        k *= k_inverse
        r *= r_inverse
        before = tl.where(high, inner * tl.exp(lower_log)[None, :], outer)
        inside = product(narrow(r * before, EXACT), narrow(state * inverse_size, EXACT), EXACT)
        inside = add_product(inside, narrow(pairs(r, w, k, inner, C, EXACT), EXACT), operand, EXACT)
        y += inside * (r_size * size)
        store_rows(y_ptr, y, begin, head, length, H, C, V, BV, first)
    else:
        k *= k_inverse
    if STATE:
        after = tl.where(high, outer, inner * tl.exp(upper_log)[None, :])
        new = product(tl.trans(narrow(k * after, EXACT)), operand, EXACT)
        state = state * tl.exp(lower_log + upper_log)[:, None] + new * size
    return state


@triton.jit
def pairs(r, w, k, inner, C: tl.constexpr, EXACT: tl.constexpr):
    """[C,C]: what the query of token t reads of the key of token i < t, decayed in between; zero elsewhere.

    At each level one tile x holds the queries above the borders and the keys below them. `inner`: of the level C / 2.
    """
    t, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    apart = t ^ i
    x = narrow(tl.where(upper(1, C), r, k), EXACT)
    found = product(x, tl.trans(x), EXACT)
    for level in tl.static_range(1, 5):
        x = narrow(tl.where(upper(1 << level, C), r, k) * reach(w, 1 << level, False, C, EXACT), EXACT)
        found = tl.where(apart >= 1 << level, product(x, tl.trans(x), EXACT), found)
    x = narrow(tl.where(upper(C // 2, C), r, k) * inner, EXACT)
    found = tl.where(apart >= C // 2, product(x, tl.trans(x), EXACT), found)
    return tl.where(t > i, found, 0.0)


@triton.jit(do_not_specialize=["T", "H"])
def scan(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, s0_ptr, y_ptr, s_ptr, states_ptr, starts_ptr, first_ptr,
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
        if KEEP:
            store_state(states_ptr, state, chunk * H + head, first, K, V, BK, BV)
        state = _chunk(
            r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
            K, V, BK, BV, C, OUTPUT, True, EXACT,
        )  # fmt: skip
        chunk += 1
    store_state(s_ptr, state, owner.to(tl.int64), first, K, V, BK, BV)


@triton.jit(do_not_specialize=["T", "H"])
def output(
    r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, states_ptr, starts_ptr,
    T, H, K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, EXACT: tl.constexpr,
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
        r_ptr, w_ptr, k_ptr, v_ptr, u_ptr, y_ptr, state, begin, length, head, H, first,
        K, V, BK, BV, C, True, False, EXACT,
    )  # fmt: skip
