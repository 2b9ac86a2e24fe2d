"""RWKV-7 without gradients on a GPU: the same pass as `rwkv7.run`, in few kernels, over weights laid out for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from wkv import wkv7
from wkv.layer import (
    decode,
    decode_one,
    gates,
    gemv,
    lora_down,
    norm_mix,
    pack_ranks,
    read_out,
    squared_relu_,
)

from rwkvlab.model.parts import GN_EPS, LN_EPS, Flow, NormWeights, norm
from rwkvlab.shapes import Dims


class FusedLayer(NamedTuple):
    """One block; R is the sum of the ranks of the LoRAs v w a g, each filled up with zeros."""

    ln1: NormWeights
    ln2: NormWeights
    mix: Tensor  # [6,C]: r k v w a g
    project: Tensor  # [3C+R,C]: receptance, key, value, and the LoRAs downwards
    up: Tensor  # [R,C]
    vectors: Tensor  # [8,C]: w0 a0 v0 k_k k_a r_k, and weight and bias of ln_x
    output: Tensor
    ffn_mix: Tensor  # [1,C]
    ffn_key: Tensor
    ffn_value: Tensor


class Fused(NamedTuple):
    """All weights of an RWKV-7, laid out for the fused kernels."""

    dims: Dims
    ranks: tuple[int, ...]
    emb: Tensor
    ln0: NormWeights
    layers: list[FusedLayer]
    ln_out: NormWeights


def lay_out(weights: dict[str, Tensor], dims: Dims) -> Fused:
    """Arrange a checkpoint's tensors; the matrices that are moved together are replaced in `weights` by views of them.

    So no large matrix is kept twice, whoever reads `weights` sees the same numbers, and what is not in use is freed.
    """
    ranks = {name: weights[f"blocks.0.att.{name}1"].shape[1] for name in "wag"}
    ranks["v"] = weights["blocks.1.att.v1"].shape[1] if dims.L > 1 else 1
    packed = pack_ranks([ranks[name] for name in "vwag"])
    layers = [_layer(weights, f"blocks.{i}.", dims.C, packed) for i in range(dims.L)]
    pairs = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in ("blocks.0.ln0", "ln_out")]
    return Fused(dims, packed, weights["emb.weight"], pairs[0], layers, pairs[1])


def _layer(weights: dict[str, Tensor], block: str, C: int, ranks: tuple[int, ...]) -> FusedLayer:
    att = block + "att."
    like = weights[att + "receptance.weight"]
    # output lies behind project: alone it would keep 20 MB from others, as PyTorch deals out what is below 10
    both, up = like.new_zeros(4 * C + sum(ranks), C), like.new_zeros(sum(ranks), C)
    project, output = both[:-C], both[-C:]
    places = (project[:C], project[C : 2 * C], project[2 * C : 3 * C], output)
    for part, name in zip(places, ("receptance", "key", "value", "output"), strict=True):
        weights[f"{att}{name}.weight"] = part.copy_(weights[f"{att}{name}.weight"])
    start = 0
    for name, rank in zip("vwag", ranks, strict=True):
        if (down := f"{att}{name}1") in weights:
            used = slice(start, start + weights[down].shape[1])
            lower = project[3 * C :][used].copy_(weights[down].t())
            weights[down] = lower.t()
            weights[f"{att}{name}2"] = up[used].copy_(weights[f"{att}{name}2"])
        start += rank
    zero = like.new_zeros(C)
    names = ("w0", "a0", "v0", "k_k", "k_a", "r_k", "ln_x.weight", "ln_x.bias")
    return FusedLayer(
        ln1=(weights[block + "ln1.weight"], weights[block + "ln1.bias"]),
        ln2=(weights[block + "ln2.weight"], weights[block + "ln2.bias"]),
        mix=torch.stack([weights[att + "x_" + name].view(-1) for name in "rkvwag"]),
        project=project,
        up=up,
        vectors=torch.stack([weights.get(att + name, zero).reshape(-1) for name in names]),
        output=output,
        ffn_mix=weights[block + "ffn.x_k"].view(1, -1),
        ffn_key=weights[block + "ffn.key.weight"],
        ffn_value=weights[block + "ffn.value.weight"],
    )


def run(p: Fused, tokens: Tensor, flow: Flow) -> Tensor:
    """Read tokens [B,T] (T >= 1) without autograd; returns x [B,T,C] after the last norm and moves `flow` on.

    One token a row is read in place: the tensors of `flow` keep their memory, as a CUDA graph needs it.
    """
    for states in (flow.wkv, flow.att, flow.ffn):
        states[:] = [layer.contiguous() for layer in states]
    x = norm(F.embedding(tokens, p.emb), p.ln0)
    v_first: Tensor | None = None
    for i, layer in enumerate(p.layers):
        mixed, flow.att[i] = norm_mix(x, flow.att[i], *layer.ln1, layer.mix, eps=LN_EPS, in_place=True)
        if tokens.numel() == 1:
            v_first = _one(p, i, layer, x, mixed, v_first, flow)
        else:
            v_first = _many(p, i, layer, x, mixed, v_first, flow)
    return norm(x, p.ln_out)


def block(p: Fused, i: int, flow: Flow, x: Tensor, v_first: Tensor | None) -> tuple[Tensor, Tensor]:
    """Layer i alone, as `rwkv7` has it: returns the next x and layer 0's v, both [B,T,C], T > 1; x stays as it is."""
    layer, x = p.layers[i], x.clone()
    flow.wkv[i], flow.att[i], flow.ffn[i] = (part[i].contiguous() for part in (flow.wkv, flow.att, flow.ffn))
    mixed, flow.att[i] = norm_mix(x, flow.att[i], *layer.ln1, layer.mix, eps=LN_EPS)
    v = _many(p, i, layer, x, mixed, None if v_first is None else v_first.reshape(-1, p.dims.C), flow)
    return x, v.clone().view(x.shape) if v_first is None else v_first  # less r and k, which v shares its memory with


def _one(p: Fused, i: int, layer: FusedLayer, x: Tensor, mixed: Tensor, v_first: Tensor | None, flow: Flow) -> Tensor:
    """One token of one row: x [1,1,C] is added to in place; returns layer 0's v."""
    C, flat = p.dims.C, x.view(1, -1)
    rows = gemv(mixed.view(6, C), layer.project, ranks=p.ranks)
    y = decode_one(rows, v_first, layer.up, flow.wkv[i], layer.vectors, p.ranks, eps=GN_EPS)
    gemv(y, layer.output, onto=flat)
    z, flow.ffn[i] = norm_mix(x, flow.ffn[i], *layer.ln2, layer.ffn_mix, eps=LN_EPS, in_place=True)
    gemv(gemv(z.view(1, C), layer.ffn_key, square=True), layer.ffn_value, onto=flat)
    return rows[:, 2 * C : 3 * C] if v_first is None else v_first


def _many(p: Fused, i: int, layer: FusedLayer, x: Tensor, mixed: Tensor, v_first: Tensor | None, flow: Flow) -> Tensor:
    """Several tokens: x [B,T,C] is added to in place; returns layer 0's v [B*T,C]."""
    (B, T, C), H, K = x.shape, p.dims.H, p.dims.K
    flat, mixed = x.view(B * T, C), mixed.view(6, B * T, C)
    r, k, v = torch.bmm(mixed[:3], layer.project[: 3 * C].view(3, C, C).mT).unbind(0)
    act = lora_down(mixed, layer.project[3 * C :], p.ranks)
    w, k, v, a, b, g = gates(k, v, v_first, act, layer.up, layer.vectors, p.ranks, K)
    if T == 1:
        y = decode(r, w, k, v, a, b, g, flow.wkv[i], layer.vectors, eps=GN_EPS)
    else:
        r_, w_, k_, v_, a_, b_ = (one.view(B, T, H, K) for one in (r, w, k, v, a, b))
        y, flow.wkv[i] = wkv7(r_, w_, k_, v_, a_, b_, flow.wkv[i])
        y = read_out(y.reshape(B * T, C), r, k, v, g, layer.vectors, K, eps=GN_EPS)
    flat.addmm_(y, layer.output.t())
    z, flow.ffn[i] = norm_mix(x, flow.ffn[i], *layer.ln2, layer.ffn_mix, eps=LN_EPS, in_place=True)
    flat.addmm_(squared_relu_(z.view(B * T, C) @ layer.ffn_key.t()), layer.ffn_value.t())
    return v if v_first is None else v_first
