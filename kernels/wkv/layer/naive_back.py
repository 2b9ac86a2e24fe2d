"""Gradients of the parts of an RWKV-7 layer by autograd, through their plain twins: what the fused ones are held to."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wkv.layer.naive import gated_naive, norm_mix_naive, read_out_naive


def pulled(
    function: Callable[..., Tensor | tuple[Tensor, ...]], slopes: Sequence[Tensor], *given: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of `given`, which `function` takes, from those of what it returns."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in given]
        out = function(*leaves)
        return torch.autograd.grad(out, leaves, slopes)


def norm_mix_back_naive(
    x: Tensor, weight: Tensor, mix: Tensor, dmixed: Tensor, dlast: Tensor | None, onto: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Shapes and formula are those of `wkv.layer.back.norm_mix_back`."""
    zeros = x.new_zeros(x[:, 0].shape)

    def forward(x: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        return norm_mix_naive(x, previous, weight, torch.zeros_like(weight), mix, eps)

    dx, dprevious = pulled(forward, (dmixed, zeros if dlast is None else dlast), x, zeros)
    return onto + dx, dprevious


def gates_back_naive(
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
    into: tuple[Tensor, Tensor],
    low: Tensor,
) -> Tensor | None:
    """Shapes and formulas are those of `wkv.layer.back.gates_back`."""
    pairs = list(zip(act.split(list(ranks), dim=-1), up.split(list(ranks)), strict=True))
    raised = [x @ part for x, part in pairs[:3]]

    def forward(k: Tensor, v: Tensor, to_v: Tensor, to_w: Tensor, to_a: Tensor, *first: Tensor) -> tuple[Tensor, ...]:
        w, k, v, a, b = gated_naive(k, v, first[0] if first else None, to_v, to_w, to_a, vectors, K)
        return w, k, v + 0 * to_v, a, b  # so that to_v is used in layer 0, too

    found = pulled(forward, (dw, dk, dv, da, db), k, v, *raised, *(() if v_first is None else (v_first,)))
    for x, gradient in zip((*into, *low[:3]), found[:5], strict=True):
        x.copy_(gradient)
    still = (k * vectors[3]).unflatten(-1, (-1, K)).eq(0).all(-1, keepdim=True).expand(-1, -1, K).flatten(-2)
    plainly = dk * torch.addcmul(1 - vectors[4], torch.sigmoid(raised[2] + vectors[1]), vectors[4])
    into[0].copy_(torch.where(still, plainly, into[0]))
    return None if v_first is None else found[5]


def lora_back_naive(dlow: Tensor, act: Tensor, up: Tensor, ranks: Sequence[int]) -> Tensor:
    """Shapes and formula are those of `wkv.layer.back.lora_back`."""
    _, w, _, g = act.split(list(ranks), dim=-1)
    dv, dw, da, dg = (x @ part.t() for x, part in zip(dlow, up.split(list(ranks)), strict=True))
    return torch.cat((dv, dw * (1 - w * w), da, dg * g * (1 - g)), dim=-1)


def read_out_back_naive(
    y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor, vectors: Tensor, K: int, dout: Tensor, eps: float, dg: Tensor
) -> tuple[Tensor, ...]:
    """Shapes and formula are those of `wkv.layer.back.read_out_back`."""

    def forward(y: Tensor, r: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return read_out_naive(y, r, k, v, g, vectors, K, eps)

    *found, last = pulled(forward, (dout,), y, r, k, v, g)
    dg.copy_(last)
    return tuple(found)
