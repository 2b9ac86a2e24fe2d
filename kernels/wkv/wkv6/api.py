"""WKV-6, the contract: checks at the door, and the choice of a backend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wkv.checks import (
    check_chunk_states,
    check_inputs,
    check_tensor,
    choose_backend,
    compute_dtype,
    grad_needed,
    sequence_lengths,
    start_state,
    triton_is_there,
)
from wkv.pieces import run_pieces
from wkv.wkv6.chunked import wkv6_chunked
from wkv.wkv6.naive import wkv6_naive


def wkv6(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    s0: Tensor | None = None,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    chunk_states: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Run the RWKV-6 recurrence over T tokens.

        y_t = (s_(t-1) + v (u*k)^T) r,   s_t = s_(t-1) diag(exp w) + v k^T

    r, w, k: [B,T,H,K], v: [B,T,H,V], u: [H,K], each float32, float64, bfloat16 or float16. `w` is the log decay, <= 0,
    -inf included. Values are not checked. s0: [B,H,V,K] float32, None for zeros; no input is written to.

    Returns (y, s): y [B,T,H,V] in the dtype of v, and the last state s [B,H,V,K]. The recurrence and s are float32,
    float64 where any input is. chunk_states=C adds the states before every C-th token [B,ceil(T/C),H,V,K].
    cu_seqlens: the n+1 positions where n sequences packed along T begin and end (B is 1): s0 and s are [n,H,V,K], and
    the chunk states, counted from the start of each sequence, lie one sequence after the other on the second axis.

    backend: "naive", "chunked", "triton" (on CUDA, for 16-bit and float32 inputs), or None: Triton where it serves,
    else chunked. All are differentiable in all inputs, s0 included, and through all outputs; "naive" more than once.
    Raises ValueError or TypeError that names the argument.
    Source: RWKV-6 "Finch", arXiv:2404.05892.
    """
    batch, tokens, heads, rows, channels = check_inputs({"r": r, "w": w, "k": k}, v)
    lengths = sequence_lengths(cu_seqlens, batch, tokens)
    check_tensor("u", u, "[H,K]", (heads, channels), r.device)
    check_chunk_states(chunk_states)
    starts = batch if lengths is None else len(lengths)
    dtype = compute_dtype(r, w, k, v, u, *([s0] if isinstance(s0, Tensor) else []))
    s0 = start_state(s0, (starts, heads, rows, channels), lengths is not None, dtype, r.device)
    longest = tokens if lengths is None else max(lengths)
    needs_grad = grad_needed(r, w, k, v, u, s0)
    exact = torch.float32 in [x.dtype for x in (r, k, v)]
    chosen = choose_backend(backend, r.device, dtype, needs_grad, longest, max(rows, channels), exact)
    if chosen == "triton":
        from wkv.wkv6.triton_op import wkv6_triton

        y, s, kept = wkv6_triton(r, w, k, v, u, s0, cu_seqlens=cu_seqlens, chunk_states=chunk_states)
    elif chosen == "serial":
        from wkv.wkv6.triton_serial import wkv6_serial

        y, s, kept = wkv6_serial(r, w, k, v, u, s0, cu_seqlens=cu_seqlens, chunk_states=chunk_states)
    elif chosen == "naive" or batch * heads == 0:
        inputs, bonus = [x.to(dtype) for x in (r, w, k, v)], u.to(dtype)

        def kernel(r: Tensor, w: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            return wkv6_naive(r, w, k, v, bonus, s)

        y, s, kept = run_pieces(kernel, inputs, inputs[3], s0, lengths, chunk_states)
    else:
        y, s, kept = wkv6_chunked(r, w, k, v, u, s0, lengths, chunk_states)
    y = y.to(v.dtype)
    return (y, s) if kept is None else (y, s, kept)


def wkv6_step(r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, s: Tensor) -> Tensor:
    """One token, in place: writes the new state into `s` [B,H,V,K] (float32 or float64) and returns y [B,H,V].

    r, w, k: [B,H,K], v: [B,H,V], u: [H,K]; otherwise as `wkv6`. No autograd. Raises ValueError where `s` does not fit.
    """
    if s.shape != (*v.shape, r.shape[-1]) or s.dtype not in (torch.float32, torch.float64):
        want = [*v.shape, r.shape[-1]]
        raise ValueError(f"s: expected float32 or float64 [B,H,V,K]={want}, got {s.dtype} {list(s.shape)}")
    if s.is_cuda and s.dtype is torch.float32 and triton_is_there():
        from wkv.wkv6.triton_step import wkv6_step_triton

        return wkv6_step_triton(r, w, k, v, u, s)
    return _step(r, w, k, v, u, s)


@torch.no_grad()
def _step(r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, s: Tensor) -> Tensor:
    r, w, k, u = (x.to(s.dtype).unsqueeze(-2) for x in (r, w, k, u))  # [B,H,1,K], u [H,1,K]
    row = v.to(s.dtype).unsqueeze(-2)  # [B,H,1,V]
    # a row times a matrix: about twice as fast on a CPU as the matrix times a column
    y = torch.addcmul(r @ s.mT, row, (r * u * k).sum(-1, keepdim=True))  # [B,H,1,V]
    s.mul_(w.exp()).addcmul_(row.mT, k)
    return y.squeeze(-2).to(v.dtype)
