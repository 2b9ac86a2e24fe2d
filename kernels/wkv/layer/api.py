"""The parts of an RWKV-7 layer around the operator: the contract, and Triton where the tensors are on a GPU.

Letters are those of `wkv`; M is B*T tokens, C = H*K, R the sum of the ranks of the low-rank maps in the order v w a g,
each a multiple of 64. None records a gradient; tensors are contiguous. `vectors` [8,C] holds w0 a0 v0 k_k k_a r_k and
weight and bias of the per-head norm. Sums are fp32; what is stored has the dtype of the weights, log decays are fp32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wkv.checks import HAS_TRITON
from wkv.layer import naive

RANK = 64  # ranks are filled up with zeros to a multiple of this


def pack_ranks(ranks: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks as the kernels want them: rounded up to multiples of 64."""
    return tuple(-(-rank // RANK) * RANK for rank in ranks)


def fits(device: torch.device, C: int, K: int, V: int) -> bool:
    """Whether the kernels run here: CUDA from Ampere on, with Triton; K = V <= 128, C a multiple of 16."""
    able = device.type == "cuda" and HAS_TRITON and torch.version.hip is None
    return able and K == V and K <= 128 and C % 16 == 0 and torch.cuda.get_device_capability(device)[0] >= 8


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda and HAS_TRITON


def norm_mix(
    x: Tensor, previous: Tensor, weight: Tensor, bias: Tensor, mix: Tensor, *, eps: float, in_place: bool = False
) -> tuple[Tensor, Tensor]:
    """z = LayerNorm(x); returns z + (z of the token before - z) * mix for each mix, and the last z.

    x [B,T,C], previous [B,C] the z before the first token, mix [n,C] -> [n,B,T,C] and [B,C]. in_place, with one token:
    `previous` itself becomes the last z, and is what is returned.
    """
    if _on_gpu(x):
        from wkv.layer.triton_mix import norm_mix_triton

        return norm_mix_triton(x, previous, weight, bias, mix, eps, in_place)
    mixed, last = naive.norm_mix_naive(x, previous, weight, bias, mix, eps)
    return mixed, previous.copy_(last) if in_place and x.shape[1] == 1 else last


def lora_down(mixed: Tensor, down: Tensor, ranks: Sequence[int]) -> Tensor:
    """The four low-rank maps downwards, w through tanh and g through sigmoid: mixes r k v w a g [6,M,C] -> [M,R]."""
    if _on_gpu(mixed):
        from wkv.layer.triton_matrix import lora_down_triton

        return lora_down_triton(mixed, down, ranks)
    return naive.lora_down_naive(mixed, down, ranks)


def gates(
    k: Tensor, v: Tensor, v_first: Tensor | None, act: Tensor, up: Tensor, vectors: Tensor, ranks: Sequence[int], K: int
) -> tuple[Tensor, ...]:
    """From k and v [M,C], the v of layer 0 (None there) and act [M,R] to the operands: (w, k, v, a, b, g), each [M,C].

    With v' w' a' g the maps upwards (up [R,C]): w = -exp(-1/2) sigmoid(w0 + w'), rate = sigmoid(a0 + a'), kk = k k_k
    at unit length in each head, a = -kk, b = kk rate, k (1 - k_a + rate k_a), v + (v_first - v) sigmoid(v0 + v').
    """
    if _on_gpu(k):
        from wkv.layer.triton_gates import gates_triton

        return gates_triton(k, v, v_first, act, up, vectors, ranks, K)
    return naive.gates_naive(k, v, v_first, act, up, vectors, ranks, K)


def read_out(y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor, vectors: Tensor, K: int, *, eps: float) -> Tensor:
    """(GroupNorm of y over each head + v sum over the head of r k r_k) g; all [M,C]."""
    if _on_gpu(y):
        from wkv.layer.triton_decode import read_out_triton

        return read_out_triton(y, r, k, v, g, vectors, K, eps)
    return naive.read_out_naive(y, r, k, v, g, vectors, K, eps)


def decode(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor,
    s: Tensor,
    vectors: Tensor,
    *,
    eps: float,
) -> Tensor:
    """One token of B rows, operands [B,C]: writes the new state into s [B,H,K,K] fp32, returns `read_out` of its y."""
    if _on_gpu(s):
        from wkv.layer.triton_decode import decode_triton

        return decode_triton(r, w, k, v, a, b, g, s, vectors, eps)
    return naive.decode_naive(r, w, k, v, a, b, g, s, vectors, eps)


def decode_one(
    rows: Tensor,
    v_first: Tensor | None,
    up: Tensor,
    s: Tensor,
    vectors: Tensor,
    ranks: Sequence[int],
    *,
    eps: float,
) -> Tensor:
    """`gates` and `decode` in one, for few rows: rows [B,3C+R] are r k v and `lora_down`; v_first [B,C] of layer 0."""
    if _on_gpu(s):
        from wkv.layer.triton_decode import decode_one_triton

        return decode_one_triton(rows, v_first, up, s, vectors, ranks, eps)
    return naive.decode_one_naive(rows, v_first, up, s, vectors, ranks, eps)


def gemv(
    x: Tensor,
    weight: Tensor,
    *,
    ranks: Sequence[int] | None = None,
    square: bool = False,
    onto: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """weight [N,C] times one token x [1,C] -> [1,N], in `dtype`; square: then relu(y)^2; onto [1,N]: added in place.

    With ranks x is [6,C], the mixes r k v w a g, and weight [3C+R,C] the maps of r k v and those of `lora_down`.
    """
    if _on_gpu(x):
        from wkv.layer.triton_matrix import gemv_triton

        return gemv_triton(x, weight, ranks=ranks, square=square, onto=onto, dtype=dtype)
    return naive.gemv_naive(x, weight, ranks=ranks, square=square, onto=onto, dtype=dtype)


def squared_relu_(x: Tensor) -> Tensor:
    """relu(x)^2 of x [M,C], in place."""
    if _on_gpu(x):
        from wkv.layer.triton_mix import squared_relu_triton

        return squared_relu_triton(x)
    return x.relu_().square_()
