"""RWKV-7 as the official checkpoints have it: the weights of a layer, and one pass over some tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from wkv import wkv7, wkv7_step

from rwkvlab.model.layerwise import layerwise, onto
from rwkvlab.model.parts import (
    Flow,
    NormWeights,
    Way,
    Weights,
    apply_wkv,
    frame,
    frame_shapes,
    head_norm,
    last,
    linear,
    matvec,
    norm,
    pair,
    shifted,
)
from rwkvlab.shapes import Dims

LOG_DECAY_FLOOR = -math.exp(-0.5)  # the log decay of a saturated gate


class Layer(NamedTuple):
    """The weights of one block, ready for use; names are those of the checkpoint."""

    ln1: NormWeights
    ln2: NormWeights
    mix: Tensor  # [6,1,1,C]: x_r x_w x_k x_v x_a x_g
    receptance: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    w: tuple[Tensor, Tensor, Tensor]  # w0 [C], w1 [Dw,C], w2 [C,Dw], as `linear` wants them; so are a, v and g
    a: tuple[Tensor, Tensor, Tensor]
    v: tuple[Tensor, Tensor, Tensor] | None  # layer 0 has none
    g: tuple[Tensor, Tensor]
    k_k: Tensor
    k_a: Tensor
    r_k: Tensor
    ln_x: NormWeights
    ffn_mix: Tensor
    ffn_key: Tensor
    ffn_value: Tensor


def shapes(dims: Dims, ranks: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a checkpoint, by its key; ranks are those of the LoRAs w, a, v and g."""
    C, vector = dims.C, (1, 1, dims.C)
    table = frame_shapes(dims)
    for i in range(dims.L):
        block, att = f"blocks.{i}.", f"blocks.{i}.att."
        table |= {att + key: vector for key in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "k_k", "k_a")}
        for name in ("w", "a", "v") if i else ("w", "a"):
            rank = ranks[name]
            table |= {f"{att}{name}0": vector, f"{att}{name}1": (C, rank), f"{att}{name}2": (rank, C)}
        table |= {att + "g1": (C, ranks["g"]), att + "g2": (ranks["g"], C), att + "r_k": (dims.H, dims.K)}
        table |= {block + "ffn.x_k": vector}
    return table


def prepare(weights: Mapping[str, Tensor], dims: Dims) -> Weights:
    """Arrange a checkpoint's tensors for `run`; large matrices are used as they are, gradients flow through."""
    layers = []
    for i in range(dims.L):
        block, att = f"blocks.{i}.", f"blocks.{i}.att."

        def lora(name: str, att: str = att) -> tuple[Tensor, Tensor, Tensor]:
            return weights[f"{att}{name}0"].view(-1), weights[f"{att}{name}1"].t(), weights[f"{att}{name}2"].t()

        layers.append(
            Layer(
                ln1=pair(weights, block + "ln1"),
                ln2=pair(weights, block + "ln2"),
                mix=torch.stack([weights[att + "x_" + c].view(1, 1, -1) for c in "rwkvag"]),
                receptance=weights[att + "receptance.weight"],
                key=weights[att + "key.weight"],
                value=weights[att + "value.weight"],
                output=weights[att + "output.weight"],
                w=lora("w"),
                a=lora("a"),
                v=lora("v") if i else None,
                g=(weights[att + "g1"].t(), weights[att + "g2"].t()),
                k_k=weights[att + "k_k"].view(-1),
                k_a=weights[att + "k_a"].view(-1),
                r_k=weights[att + "r_k"].view(dims.H, dims.K),
                ln_x=pair(weights, att + "ln_x"),
                ffn_mix=weights[block + "ffn.x_k"].view(-1),
                ffn_key=weights[block + "ffn.key.weight"],
                ffn_value=weights[block + "ffn.value.weight"],
            )
        )
    return frame(weights, dims, layers)


def run(p: Weights, tokens: Tensor, flow: Flow, way: Way = Way()) -> Tensor:  # noqa: B008
    """Read tokens [B,T]; returns x [B,T,C] after the last norm, moves `flow` on (Peng et al. 2025, arXiv 2503.14456).

    Under autograd nothing is written in place: `flow` gets new tensors, and gradients reach the old ones.
    """
    x = norm(F.embedding(tokens, p.emb), p.ln0)
    v_first: Tensor | None = None
    quick, back = (p.quick, p.back) if way.plain else (None, None)
    for i, layer in enumerate(p.layers):
        x, v_first = layerwise(_block, i, flow, way, p.dims, layer, x, v_first, quick=quick, back=back)
    return norm(x, p.ln_out)


def _block(
    i: int, flow: Flow, way: Way, dims: Dims, p: Layer, x: Tensor, v_first: Tensor | None
) -> tuple[Tensor, Tensor]:
    out, v_first = _time_mix(dims, i, p, norm(x, p.ln1), v_first, flow, way)
    x = x + out
    z = norm(x, p.ln2)
    mixed = torch.lerp(z, shifted(z, flow.ffn[i]), p.ffn_mix)
    flow.ffn[i] = last(z)
    return onto(x, torch.relu(linear(mixed, p.ffn_key)).square(), p.ffn_value, way), v_first


def _time_mix(
    dims: Dims, i: int, p: Layer, z: Tensor, v_first: Tensor | None, flow: Flow, way: Way
) -> tuple[Tensor, Tensor]:
    batch, time, _ = z.shape
    heads = (batch, time, dims.H, dims.K)
    z_r, z_w, z_k, z_v, z_a, z_g = torch.addcmul(z, shifted(z, flow.att[i]) - z, p.mix).unbind(0)
    flow.att[i] = last(z)
    r, k, v = linear(z_r, p.receptance), linear(z_k, p.key), linear(z_v, p.value)
    gate = _lora(torch.tanh(linear(z_w, p.w[1])), p.w)
    w = LOG_DECAY_FLOOR * torch.sigmoid(gate.float())  # [B,T,C] log decay, fp32
    a = torch.sigmoid(_lora(linear(z_a, p.a[1]), p.a))
    g = linear(torch.sigmoid(linear(z_g, p.g[0])), p.g[1])
    kk = _unit((k * p.k_k).view(heads))
    k = k * torch.addcmul(1 - p.k_a, a, p.k_a)
    if p.v is None or v_first is None:
        v_first = v
    else:
        v = torch.lerp(v, v_first, torch.sigmoid(_lora(linear(z_v, p.v[1]), p.v)))
    r, w, k, v, a = (x.view(heads) for x in (r, w, k, v, a))
    operands = {"r": r, "w": w, "k": k, "v": v, "a": -kk, "b": kk * a}
    y = apply_wkv(wkv7, wkv7_step, operands, i, flow, way)
    y = head_norm(y, dims.H, *p.ln_x).view(batch, time, -1)
    bonus = (r * k * p.r_k).sum(-1, keepdim=True) * v
    return linear((y + bonus.flatten(2)) * g, p.output), v_first


def step(p: Weights, tokens: Tensor, flow: Flow) -> Tensor:
    """`run` for one token of one text, tokens [1,1], without autograd: on plain vectors, in fewer operations."""
    H, K = p.dims.H, p.dims.K
    x = norm(p.emb[tokens.view(())], p.ln0)  # [C]
    v_first: Tensor | None = None
    for i, layer in enumerate(p.layers):
        z = norm(x, layer.ln1)
        mixed = torch.addcmul(z, flow.att[i] - z, layer.mix.view(6, -1))  # [6,C]
        z_r, z_w, z_k, z_v, z_a, z_g = mixed.unbind(0)
        flow.att[i] = z[None]
        r, k, v = matvec(layer.receptance, z_r), matvec(layer.key, z_k), matvec(layer.value, z_v)
        w = torch.addmv(layer.w[0], layer.w[2], layer.w[1].mv(z_w).tanh_()).float().sigmoid_().mul_(LOG_DECAY_FLOOR)
        a = torch.addmv(layer.a[0], layer.a[2], layer.a[1].mv(z_a)).sigmoid_()
        g = layer.g[1].mv(layer.g[0].mv(z_g).sigmoid_())
        kk = _unit((k * layer.k_k).view(1, H, K))
        k = k.mul_(torch.addcmul(1 - layer.k_a, a, layer.k_a))
        if v_first is None or layer.v is None:
            v_first = v
        else:
            v = torch.lerp(v, v_first, torch.addmv(layer.v[0], layer.v[2], layer.v[1].mv(z_v)).sigmoid_())
        r, w, k, v, a = (x.view(1, H, K) for x in (r, w, k, v, a))
        y = wkv7_step(r, w, k, v, -kk, kk * a, flow.wkv[i])
        y = head_norm(y[None], H, *layer.ln_x).view(1, H, K)
        y = y.addcmul_((r * k).mul_(layer.r_k).sum(-1, keepdim=True), v).view(-1).mul_(g)
        x = x + matvec(layer.output, y)
        z = norm(x, layer.ln2)
        mixed = torch.lerp(z, flow.ffn[i][0], layer.ffn_mix)
        flow.ffn[i] = z[None]
        x = x + matvec(layer.ffn_value, matvec(layer.ffn_key, mixed).relu_().square_())
    return norm(x, p.ln_out)[None, None]


def _unit(x: Tensor) -> Tensor:
    """x over its norm along the last axis, in fp32: the guard against zero keys is itself zero in fp16."""
    return F.normalize(x.float(), dim=-1).to(x.dtype)


def _lora(x: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return linear(x, weights[2]) + weights[0]
