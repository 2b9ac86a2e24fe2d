"""RWKV-5.2 as the official checkpoints have it: the weights of a layer, and one pass over some tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from wkv import wkv6, wkv6_step

from rwkvlab.model.layerwise import layerwise
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
    norm,
    pair,
    shifted,
)
from rwkvlab.model.rwkv6 import channel_mix
from rwkvlab.shapes import Dims


class Layer(NamedTuple):
    """The weights of one block, ready for use; names are those of the checkpoint."""

    ln1: NormWeights
    ln2: NormWeights
    mix: Tensor  # [4,1,1,C]: k v r g; the share of the present token
    decay: Tensor  # [H,K] fp32: log decay
    faaaa: Tensor  # [H,K] fp32
    receptance: Tensor
    key: Tensor
    value: Tensor
    gate: Tensor
    output: Tensor
    ln_x: NormWeights
    ffn_mix: Tensor  # [2,1,1,C]: k r
    ffn_key: Tensor
    ffn_value: Tensor
    ffn_receptance: Tensor


def shapes(dims: Dims, ranks: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a checkpoint, by its key; there are no LoRAs, ranks is empty."""
    C, vector = dims.C, (1, 1, dims.C)
    table = frame_shapes(dims)
    for i in range(dims.L):
        att, ffn = f"blocks.{i}.att.", f"blocks.{i}.ffn."
        table |= {f"{att}time_mix_{c}": vector for c in "kvrg"}
        table |= {att + "time_decay": (dims.H, dims.K), att + "time_faaaa": (dims.H, dims.K)}
        table |= {att + "gate.weight": (C, C)}
        table |= {ffn + "time_mix_k": vector, ffn + "time_mix_r": vector, ffn + "receptance.weight": (C, C)}
    return table


def prepare(weights: Mapping[str, Tensor], dims: Dims) -> Weights:
    """Arrange a checkpoint's tensors for `run`; large matrices are used as they are, gradients flow through."""
    layers = []
    for i in range(dims.L):
        block, att, ffn = f"blocks.{i}.", f"blocks.{i}.att.", f"blocks.{i}.ffn."
        layers.append(
            Layer(
                ln1=pair(weights, block + "ln1"),
                ln2=pair(weights, block + "ln2"),
                mix=torch.stack([weights[att + "time_mix_" + c].view(1, 1, -1) for c in "kvrg"]),
                decay=-torch.exp(weights[att + "time_decay"].float()).view(dims.H, dims.K),
                faaaa=weights[att + "time_faaaa"].view(dims.H, dims.K).float(),
                receptance=weights[att + "receptance.weight"],
                key=weights[att + "key.weight"],
                value=weights[att + "value.weight"],
                gate=weights[att + "gate.weight"],
                output=weights[att + "output.weight"],
                ln_x=pair(weights, att + "ln_x"),
                ffn_mix=torch.stack([weights[ffn + "time_mix_" + c].view(1, 1, -1) for c in "kr"]),
                ffn_key=weights[ffn + "key.weight"],
                ffn_value=weights[ffn + "value.weight"],
                ffn_receptance=weights[ffn + "receptance.weight"],
            )
        )
    return frame(weights, dims, layers)


def run(p: Weights, tokens: Tensor, flow: Flow, way: Way = Way()) -> Tensor:  # noqa: B008
    """Read tokens [B,T]; returns x [B,T,C] after the last norm, moves `flow` on (Peng et al. 2024, arXiv 2404.05892).

    Under autograd nothing is written in place: `flow` gets new tensors, and gradients reach the old ones.
    """
    x = norm(F.embedding(tokens, p.emb), p.ln0)
    for i, layer in enumerate(p.layers):
        (x,) = layerwise(_block, i, flow, way, p.dims, layer, x)
    return norm(x, p.ln_out)


def _block(i: int, flow: Flow, way: Way, dims: Dims, p: Layer, x: Tensor) -> tuple[Tensor]:
    x = x + _time_mix(dims, i, p, norm(x, p.ln1), flow, way)
    z = norm(x, p.ln2)
    z_k, z_r = torch.lerp(shifted(z, flow.ffn[i]), z, p.ffn_mix).unbind(0)
    flow.ffn[i] = last(z)
    return (x + channel_mix(z_k, z_r, p.ffn_key, p.ffn_value, p.ffn_receptance),)


def _time_mix(dims: Dims, i: int, p: Layer, z: Tensor, flow: Flow, way: Way) -> Tensor:
    batch, time, _ = z.shape
    heads = (batch, time, dims.H, dims.K)
    z_k, z_v, z_r, z_g = torch.lerp(shifted(z, flow.att[i]), z, p.mix).unbind(0)
    flow.att[i] = last(z)
    r, k, v = (linear(x, weight).view(heads) for x, weight in ((z_r, p.receptance), (z_k, p.key), (z_v, p.value)))
    operands = {"r": r, "w": p.decay.expand(heads), "k": k, "v": v, "u": p.faaaa}
    y = apply_wkv(wkv6, wkv6_step, operands, i, flow, way)
    y = head_norm(y, dims.H, *p.ln_x).view(batch, time, -1)
    return linear(y * F.silu(linear(z_g, p.gate)), p.output)
