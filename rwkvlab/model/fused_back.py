"""The way back through a layer of RWKV-7 on a GPU, in few kernels: gradients of what it is given, none of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from wkv import wkv7
from wkv.layer import gates, lora_down, norm_mix, read_out
from wkv.layer.back import gates_back, lora_back, norm_mix_back, read_out_back, squared_relu_back_

from rwkvlab.model.fused import Fused, FusedLayer
from rwkvlab.model.parts import GN_EPS, LN_EPS


class Made(NamedTuple):
    """What the gates of a layer are made of, and what they make, each [M,C] but act [M,R]."""

    r: Tensor
    k: Tensor
    v: Tensor
    act: Tensor
    operands: tuple[Tensor, ...]  # w k v a b
    g: Tensor


def block_back(
    p: Fused, i: int, given: Sequence[Tensor | None], slopes: Sequence[Tensor | None], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of what layer i is given, (wkv, att, ffn, x, v_first), of which some are `needed`.

    slopes: those of what `fused.block` returns and of the state behind it, (x, v_first, wkv, att, ffn), None for zeros.
    Everything in between is made once more. x is [B,T,C], T > 1; v_first is None in layer 0.
    """
    layer, K = p.layers[i], p.dims.K
    wkv, att, ffn, x = (one.contiguous() for one in given[:4] if one is not None)
    (B, T, C), M = x.shape, x.shape[0] * x.shape[1]
    v_first = None if given[4] is None else given[4].contiguous().view(M, C)
    dx, dv_first, ds, datt, dffn = (None if one is None else one.contiguous() for one in slopes)
    dv_first = None if dv_first is None else dv_first.view(M, C)

    made = _made(p, layer, x, att, v_first)
    w, k, v, *_ = made.operands
    heads = (one.view(B, T, -1, K) for one in (made.r, *made.operands))
    leaves = [one.detach().requires_grad_() for one in (*heads, wkv)]
    with torch.enable_grad():
        ends = wkv7(*leaves)
    y = ends[0].detach().reshape(M, C)
    out = read_out(y, made.r, k, v, made.g, layer.vectors, K, eps=GN_EPS)
    middle = torch.addmm(x.view(M, C), out, layer.output.t()).view(B, T, C)

    dx, dffn = _ffn_back(layer, middle, ffn, torch.zeros_like(x) if dx is None else dx, dffn)
    low = x.new_empty((4, M, C))  # gradients of what comes up from the ranks, v w a g
    dout = dx.view(M, C) @ layer.output
    dy, dr, dk, dv = read_out_back(y, made.r, k, v, made.g, layer.vectors, K, dout, eps=GN_EPS, dg=low[3])
    found = torch.autograd.grad(
        ends[: 1 + (ds is not None)], leaves, [dy.view(B, T, -1, K), *([] if ds is None else [ds])]
    )
    if not (needed[1] or needed[3] or needed[4]):  # layer 0, where only the matrices of the state are trained
        return found[6], None, dffn, None, None

    gr, dw, gk, gv, da, db = (one.reshape(M, C) for one in found[:6])
    big = x.new_empty((3, M, C))  # gradients of r k v before the gates
    torch.add(dr, gr, out=big[0])
    torch._foreach_add_([dk, dv], [gk, gv])
    if v_first is None and dv_first is not None:
        dv += dv_first
    dfirst = gates_back(
        made.k, made.v, v_first, made.act, layer.up, layer.vectors, p.ranks, K, w, dw, dk, dv, da, db,
        into=(big[1], big[2]), low=low,
    )  # fmt: skip
    if dfirst is not None and dv_first is not None:
        dfirst += dv_first
    dmixed = _maps_back(p, layer, big, lora_back(low, made.act, layer.up, p.ranks))
    dx, datt = norm_mix_back(x, layer.ln1[0], layer.mix, dmixed.view(6, B, T, C), datt, dx, eps=LN_EPS)
    return found[6], datt, dffn, dx, None if dfirst is None else dfirst.view(B, T, C)


def _made(p: Fused, layer: FusedLayer, x: Tensor, att: Tensor, v_first: Tensor | None) -> Made:
    """What `fused.block` makes of x [B,T,C] before the operator."""
    C = x.shape[-1]
    mixed = norm_mix(x, att, *layer.ln1, layer.mix, eps=LN_EPS)[0].view(6, -1, C)
    r, k, v = torch.bmm(mixed[:3], layer.project[: 3 * C].view(3, C, C).mT).unbind(0)
    act = lora_down(mixed, layer.project[3 * C :], p.ranks)
    *operands, g = gates(k, v, v_first, act, layer.up, layer.vectors, p.ranks, p.dims.K)
    return Made(r, k, v, act, tuple(operands), g)


def _ffn_back(
    layer: FusedLayer, x: Tensor, previous: Tensor, dx: Tensor, dlast: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradients of x [B,T,C] and of `previous` [B,C] through the second half of a layer and around it."""
    M, C = x.shape[0] * x.shape[1], x.shape[-1]
    mixed = norm_mix(x, previous, *layer.ln2, layer.ffn_mix, eps=LN_EPS)[0].view(M, C)
    dh = squared_relu_back_(dx.view(M, C) @ layer.ffn_value, mixed @ layer.ffn_key.t())
    dmixed = (dh @ layer.ffn_key).view(1, *x.shape)
    return norm_mix_back(x, layer.ln2[0], layer.ffn_mix, dmixed, dlast, dx, eps=LN_EPS)


def _maps_back(p: Fused, layer: FusedLayer, big: Tensor, dact: Tensor) -> Tensor:
    """The gradients of the mixes r k v w a g [6,M,C]: through the maps of r k v, and downwards to the ranks v w a g."""
    _, M, C = big.shape
    dmixed = big.new_empty((6, M, C))
    torch.bmm(big, layer.project[: 3 * C].view(3, C, C), out=dmixed[:3])
    ranks = list(p.ranks)
    v, *others = zip(dact.split(ranks, dim=-1), layer.project[3 * C :].split(ranks), strict=True)
    dmixed[2].addmm_(*v)
    for into, pair in zip(dmixed[3:], others, strict=True):
        torch.mm(*pair, out=into)
    return dmixed
