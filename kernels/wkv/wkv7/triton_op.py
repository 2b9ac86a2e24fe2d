"""WKV-7 on Triton, differentiable: the operator over whole chunks as torch ops."""

from collections.abc import Sequence

from torch import Tensor

from wkv.chunk_table import CHUNK
from wkv.triton_op import Kernels, call_operator, make_operator
from wkv.wkv7.triton_launch import backward, empty_prepared, forward, padded, product_dtype, walks


def _saved(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s0: Tensor, chunks: int) -> list[Tensor]:
    """Like the states, u, sizes, inverse and what is prepared of `forward`."""
    half = product_dtype(r, k, v, a, b)
    H, C, K, V = r.shape[2], CHUNK, padded(r.shape[3]), padded(v.shape[3])
    states, u = (r.new_empty((chunks, H, rows, V), dtype=half) for rows in (K, C))
    sizes = [s0.new_empty((chunks, H)), s0.new_empty((3, chunks, H, C))]
    walking = walks(s0.shape[0] * H, r, w, v, True)
    inverse = r.new_empty((chunks if walking else 0, H, C, C), dtype=half)
    prepared = 0 if walking else chunks
    return [states, u, *sizes, inverse, *empty_prepared(r, s0, prepared, half, prepared)]


OPERATOR = make_operator(Kernels("wkv7", "rwkvab", forward, backward, _saved, again=True))


def wkv7_triton(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    s0: Tensor,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    chunk_states: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`wkv.wkv7` of checked 16-bit or fp32 inputs and an fp32 s0, all w in [-exp(-1/2), 0]; differentiable once.

    Returns y (in the dtype of v), the final state and the states before every `chunk_states`-th token of each sequence:
    [B,ceil(T/n),H,V,K], or with `cu_seqlens` [1,sum of ceil(T_i/n),H,V,K], one sequence after the other.
    """
    return call_operator(OPERATOR, [r, w, k, v, a, b], s0, cu_seqlens, chunk_states)
