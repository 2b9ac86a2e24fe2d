"""WKV-7, the contract: checks at the door, and the choice of a backend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wkv.checks import (
    check_chunk_states,
    check_inputs,
    choose_backend,
    compute_dtype,
    grad_needed,
    sequence_lengths,
    start_state,
    triton_is_there,
)
from wkv.pieces import run_pieces
from wkv.wkv7.chunked import wkv7_chunked
from wkv.wkv7.naive import wkv7_naive


def wkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    s0: Tensor | None = None,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    chunk_states: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Run the RWKV-7 recurrence over T tokens.

        s_t = s_(t-1) diag(exp w) + (s_(t-1) a) b^T + v k^T,   y_t = s_t r     (a = -kk, b = kk * in-context rate)

    r, w, k, a, b: [B,T,H,K], v: [B,T,H,V], each float32, float64, bfloat16 or float16. `w` is the log decay, <= 0;
    RWKV-7 keeps it in [-exp(-1/2), 0], and the Triton backend relies on that; "naive" and "chunked" take -inf too.
    Values are not checked. s0: [B,H,V,K] float32, None for zeros; no input is written to.

    Returns (y, s): y [B,T,H,V] in the dtype of v, and the last state s [B,H,V,K]. The recurrence and s are float32,
    float64 where any input is. chunk_states=C adds the states before every C-th token [B,ceil(T/C),H,V,K].
    cu_seqlens: the n+1 positions where n sequences packed along T begin and end (B is 1): s0 and s are [n,H,V,K], and
    the chunk states, counted from the start of each sequence, lie one sequence after the other on the second axis.

    backend: "naive", "chunked", "triton" (on CUDA, for 16-bit and float32 inputs), or None: Triton where it serves,
    else chunked. All are differentiable in all inputs, s0 included, and through all outputs; "naive" more than once.
    Raises ValueError or TypeError that names the argument.
    Source: RWKV-7 "Goose", arXiv:2503.14456.
    """
    batch, tokens, heads, rows, channels = check_inputs({"r": r, "w": w, "k": k, "a": a, "b": b}, v)
    lengths = sequence_lengths(cu_seqlens, batch, tokens)
    check_chunk_states(chunk_states)
    starts = batch if lengths is None else len(lengths)
    dtype = compute_dtype(r, w, k, v, a, b, *([s0] if isinstance(s0, Tensor) else []))
    s0 = start_state(s0, (starts, heads, rows, channels), lengths is not None, dtype, r.device)
    longest = tokens if lengths is None else max(lengths)
    needs_grad = grad_needed(r, w, k, v, a, b, s0)
    exact = torch.float32 in [x.dtype for x in (r, k, v, a, b)]
    chosen = choose_backend(backend, r.device, dtype, needs_grad, longest, max(rows, channels), exact)
    if chosen == "triton":
        from wkv.wkv7.triton_op import wkv7_triton

        y, s, kept = wkv7_triton(r, w, k, v, a, b, s0, cu_seqlens=cu_seqlens, chunk_states=chunk_states)
    elif chosen == "serial":
        from wkv.wkv7.triton_serial import wkv7_serial

        y, s, kept = wkv7_serial(r, w, k, v, a, b, s0, cu_seqlens=cu_seqlens, chunk_states=chunk_states)
    elif chosen == "naive" or batch * heads == 0:
        inputs = [x.to(dtype) for x in (r, w, k, v, a, b)]
        y, s, kept = run_pieces(wkv7_naive, inputs, inputs[3], s0, lengths, chunk_states)
    else:
        y, s, kept = wkv7_chunked(r, w, k, v, a, b, s0, lengths, chunk_states)
    y = y.to(v.dtype)
    return (y, s) if kept is None else (y, s, kept)


def wkv7_step(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """One token, in place: writes the new state into `s` [B,H,V,K] (float32 or float64) and returns y [B,H,V].

    r, w, k, a, b: [B,H,K], v: [B,H,V]; otherwise as `wkv7`. No autograd. Raises ValueError where `s` does not fit.
    """
    if s.shape != (*v.shape, r.shape[-1]) or s.dtype not in (torch.float32, torch.float64):
        want = [*v.shape, r.shape[-1]]
        raise ValueError(f"s: expected float32 or float64 [B,H,V,K]={want}, got {s.dtype} {list(s.shape)}")
    if s.is_cuda and s.dtype is torch.float32 and triton_is_there():
        from wkv.wkv7.triton_step import wkv7_step_triton

        return wkv7_step_triton(r, w, k, v, a, b, s)
    return _step(r, w, k, v, a, b, s)


@torch.no_grad()
def _step(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    r, w, k, a, b = (x.to(s.dtype).unsqueeze(-2) for x in (r, w, k, a, b))  # [B,H,1,K]
    # a row times a matrix: about twice as fast on a CPU as the matrix times a column
    read = (a @ s.mT).mT  # [B,H,V,1]
    s.mul_(w.exp()).addcmul_(read, b).addcmul_(v.to(s.dtype).unsqueeze(-1), k)
    return (r @ s.mT).squeeze(-2).to(v.dtype)
