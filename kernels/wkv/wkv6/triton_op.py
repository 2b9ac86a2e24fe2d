"""WKV-6 on Triton, differentiable: the operator over whole chunks as torch ops."""

from collections.abc import Sequence

from torch import Tensor

from wkv.triton_op import Kernels, call_operator, make_operator
from wkv.wkv6.triton_launch import backward, forward

OPERATOR = make_operator(Kernels("wkv6", "rwkvu", forward, backward, lambda *_: []))


def wkv6_triton(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    s0: Tensor,
    *,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    chunk_states: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`wkv.wkv6` of checked 16-bit or fp32 inputs and an fp32 s0; differentiable once.

    Returns y (in the dtype of v), the final state and the states before every `chunk_states`-th token of each sequence:
    [B,ceil(T/n),H,V,K], or with `cu_seqlens` [1,sum of ceil(T_i/n),H,V,K], one sequence after the other.
    """
    return call_operator(OPERATOR, [r, w, k, v, u], s0, cu_seqlens, chunk_states)
