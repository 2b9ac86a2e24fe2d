"""Gradients of the parts of an RWKV-7 layer: the contract, and Triton where the tensors are on a GPU.

As in `wkv.layer.api`, which has the letters; the weights are frozen and get none. `d…` is the gradient of what bears
the name; sums are fp32, and what is stored has the dtype of the weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wkv.checks import HAS_TRITON
from wkv.layer import naive_back


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda and HAS_TRITON


def norm_mix_back(
    x: Tensor,
    weight: Tensor,
    mix: Tensor,
    dmixed: Tensor,
    dlast: Tensor | None,
    onto: Tensor,
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Of `norm_mix`: (onto + dx [B,T,C], dprevious [B,C]), from dmixed [n,B,T,C] and dlast [B,C] (None: zeros)."""
    if _on_gpu(x):
        from wkv.layer.triton_mix_back import norm_mix_back_triton

        return norm_mix_back_triton(x, weight, mix, dmixed, dlast, onto, eps)
    return naive_back.norm_mix_back_naive(x, weight, mix, dmixed, dlast, onto, eps)


def gates_back(
    k: Tensor,
    v: Tensor,
    v_first: Tensor | None,
    act: Tensor,
    up: Tensor,
    vectors: Tensor,
    ranks: Sequence[int],
    K: int,
    w: Tensor,
    dw: Tensor,
    dk: Tensor,
    dv: Tensor,
    da: Tensor,
    db: Tensor,
    *,
    into: tuple[Tensor, Tensor],
    low: Tensor,
) -> Tensor | None:
    """Of `gates` but for g: writes the gradients of its k and v into `into`, those of v' w' a' into low[:3] [4,M,C].

    w, which `gates` gave, and dw [M,C] are fp32. Returns dv_first, None without v_first; low[0] is zeros then. A key of
    zeros, which has no direction, gets no gradient through it.
    """
    inputs = (k, v, v_first, act, up, vectors, ranks, K, w, dw, dk, dv, da, db)
    if _on_gpu(k):
        from wkv.layer.triton_gates_back import gates_back_triton

        return gates_back_triton(*inputs, into, low)
    return naive_back.gates_back_naive(*inputs, into, low)


def lora_back(dlow: Tensor, act: Tensor, up: Tensor, ranks: Sequence[int]) -> Tensor:
    """From the gradients [4,M,C] of v' w' a' g to those [M,R] of the ranks before tanh and sigmoid, given `act`."""
    if _on_gpu(dlow):
        from wkv.layer.triton_matrix import lora_back_triton

        return lora_back_triton(dlow, act, up, ranks)
    return naive_back.lora_back_naive(dlow, act, up, ranks)


def read_out_back(
    y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor, vectors: Tensor, K: int, dout: Tensor, *, eps: float,
    dg: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Of `read_out`: (dy, dr, dk, dv), each [M,C]; that of g is written into dg."""
    if _on_gpu(y):
        from wkv.layer.triton_gates_back import read_out_back_triton

        return read_out_back_triton(y, r, k, v, g, vectors, K, dout, eps, dg)
    return naive_back.read_out_back_naive(y, r, k, v, g, vectors, K, dout, eps, dg)


def squared_relu_back_(dh: Tensor, x: Tensor) -> Tensor:
    """2 relu(x) dh of [M,C], in the place of dh."""
    if _on_gpu(x):
        from wkv.layer.triton_mix_back import squared_relu_back_triton

        return squared_relu_back_triton(dh, x)
    return dh.mul_(torch.relu(x)).mul_(2)
