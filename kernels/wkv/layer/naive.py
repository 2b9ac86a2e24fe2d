"""The parts of an RWKV-7 layer in plain PyTorch: what every fused kernel is held to, and the way on a CPU."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = -math.exp(-0.5)  # the log decay of a saturated gate
DOWN = (2, 3, 4, 5)  # which of the mixes r k v w a g the low-rank maps v w a g read


def norm_mix_naive(
    x: Tensor, previous: Tensor, weight: Tensor, bias: Tensor, mix: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Shapes and formula are those of `wkv.layer.norm_mix`."""
    z = F.layer_norm(x, x.shape[-1:], weight, bias, eps)  # [B,T,C]
    before = torch.cat((previous[:, None], z[:, :-1]), dim=1)
    return torch.addcmul(z, before - z, mix[:, None, None]), z[:, -1].clone()


def lora_down_naive(mixed: Tensor, down: Tensor, ranks: Sequence[int]) -> Tensor:
    """Shapes and formula are those of `wkv.layer.lora_down`."""
    rows = down.split(list(ranks))
    v, w, a, g = (F.linear(mixed[at], part) for at, part in zip(DOWN, rows, strict=True))
    return torch.cat((v, w.tanh(), a, g.sigmoid()), dim=-1)  # [M,R]


def gates_naive(
    k: Tensor, v: Tensor, v_first: Tensor | None, act: Tensor, up: Tensor, vectors: Tensor, ranks: Sequence[int], K: int
) -> tuple[Tensor, ...]:
    """Shapes and formulas are those of `wkv.layer.gates`."""
    pairs = zip(act.split(list(ranks), dim=-1), up.split(list(ranks)), strict=True)
    to_v, to_w, to_a, g = (low @ part for low, part in pairs)  # [M,C]
    return *gated_naive(k, v, v_first, to_v, to_w, to_a, vectors, K), g


def gated_naive(
    k: Tensor, v: Tensor, v_first: Tensor | None, to_v: Tensor, to_w: Tensor, to_a: Tensor, vectors: Tensor, K: int
) -> tuple[Tensor, ...]:
    """`wkv.layer.gates` behind the maps upwards, all [M,C]: (w, k, v, a, b)."""
    w0, a0, v0, k_k, k_a = vectors[:5]
    w = FLOOR * torch.sigmoid((to_w + w0).float())
    a = torch.sigmoid(to_a + a0)
    kk = F.normalize((k * k_k).float().unflatten(-1, (-1, K)), dim=-1).flatten(-2).to(k.dtype)
    if v_first is not None:
        v = torch.lerp(v, v_first, torch.sigmoid(to_v + v0))
    return w, k * torch.addcmul(1 - k_a, a, k_a), v, -kk, kk * a


def read_out_naive(
    y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor, vectors: Tensor, K: int, eps: float
) -> Tensor:
    """Shapes and formula are those of `wkv.layer.read_out`."""
    r_k, weight, bias = vectors[5:]
    normed = F.group_norm(y, y.shape[-1] // K, weight, bias, eps)
    bonus = (r * k * r_k).unflatten(-1, (-1, K)).sum(-1, keepdim=True) * v.unflatten(-1, (-1, K))
    return (normed + bonus.flatten(-2)) * g


def decode_naive(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor, s: Tensor, vectors: Tensor, eps: float
) -> Tensor:
    """Shapes and formula are those of `wkv.layer.decode`; writes the new state into s."""
    K = s.shape[-1]
    r_, w_, k_, a_, b_ = (x.to(s.dtype).unflatten(-1, (-1, 1, K)) for x in (r, w, k, a, b))  # [B,H,1,K]
    read = (s * a_).sum(-1, keepdim=True)
    s.mul_(w_.exp()).addcmul_(read, b_).addcmul_(v.to(s.dtype).unflatten(-1, (-1, K, 1)), k_)
    y = (s * r_).sum(-1).flatten(1).to(v.dtype)  # [B,C]
    return read_out_naive(y, r, k, v, g, vectors, K, eps)


def decode_one_naive(
    rows: Tensor, v_first: Tensor | None, up: Tensor, s: Tensor, vectors: Tensor, ranks: Sequence[int], eps: float
) -> Tensor:
    """Shapes and formula are those of `wkv.layer.decode_one`; writes the new state into s."""
    C = up.shape[-1]
    r, k, v, act = rows.split([C, C, C, up.shape[0]], dim=-1)
    w, k, v, a, b, g = gates_naive(k, v, v_first, act, up, vectors, ranks, s.shape[-1])
    return decode_naive(r, w, k, v, a, b, g, s, vectors, eps)


def gemv_naive(
    x: Tensor,
    weight: Tensor,
    *,
    ranks: Sequence[int] | None = None,
    square: bool = False,
    onto: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Shapes and formula are those of `wkv.layer.gemv`."""
    if ranks is not None:
        C = x.shape[-1]
        big = (F.linear(one, part) for one, part in zip(x[:3], weight[: 3 * C].split(C), strict=True))
        return torch.cat((*big, lora_down_naive(x[:, None], weight[3 * C :], ranks)[0]))[None]
    y = F.linear(x, weight)
    if square:
        y = torch.relu(y).square()
    return y.to(dtype or y.dtype) if onto is None else onto.add_(y)
