"""RWKV-6 as the official checkpoints have it: the weights of a layer, and one pass over some tokens."""

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
from rwkvlab.shapes import Dims

MIXES = "wkvrg"  # the order in time_maa_w1 and time_maa_w2


class Layer(NamedTuple):
    """The weights of one block, ready for use; names are those of the checkpoint."""

    ln1: NormWeights
    ln2: NormWeights
    maa_x: Tensor
    maa: Tensor  # [5,1,1,C]: w k v r g
    maa_w1: Tensor  # [5M,C]
    maa_w2: Tensor  # [5,M,C]
    decay: tuple[Tensor, Tensor, Tensor]  # time_decay [C], w1 [Dd,C], w2 [C,Dd], as `linear` wants them
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
    """Return the shape of every tensor of a checkpoint, by its key; ranks are those of the LoRAs "maa" and "decay"."""
    C, vector = dims.C, (1, 1, dims.C)
    table = frame_shapes(dims)
    for i in range(dims.L):
        att, ffn = f"blocks.{i}.att.", f"blocks.{i}.ffn."
        table |= {f"{att}time_maa_{c}": vector for c in "xwkvrg"}
        table |= {att + "time_maa_w1": (C, 5 * ranks["maa"]), att + "time_maa_w2": (5, ranks["maa"], C)}
        table |= {att + "time_decay": vector, att + "time_faaaa": (dims.H, dims.K)}
        table |= {att + "time_decay_w1": (C, ranks["decay"]), att + "time_decay_w2": (ranks["decay"], C)}
        table |= {att + "gate.weight": (C, C)}
        table |= {ffn + "time_maa_k": vector, ffn + "time_maa_r": vector, ffn + "receptance.weight": (C, C)}
    return table


def prepare(weights: Mapping[str, Tensor], dims: Dims) -> Weights:
    """Arrange a checkpoint's tensors for `run`; large matrices are used as they are, gradients flow through."""
    layers = []
    for i in range(dims.L):
        block, att, ffn = f"blocks.{i}.", f"blocks.{i}.att.", f"blocks.{i}.ffn."
        decay = [weights[att + key] for key in ("time_decay", "time_decay_w1", "time_decay_w2")]
        layers.append(
            Layer(
                ln1=pair(weights, block + "ln1"),
                ln2=pair(weights, block + "ln2"),
                maa_x=weights[att + "time_maa_x"].view(-1),
                maa=torch.stack([weights[att + "time_maa_" + c].view(1, 1, -1) for c in MIXES]),
                maa_w1=weights[att + "time_maa_w1"].t(),
                maa_w2=weights[att + "time_maa_w2"],
                decay=(decay[0].view(-1), decay[1].t(), decay[2].t()),
                faaaa=weights[att + "time_faaaa"].view(dims.H, dims.K).float(),
                receptance=weights[att + "receptance.weight"],
                key=weights[att + "key.weight"],
                value=weights[att + "value.weight"],
                gate=weights[att + "gate.weight"],
                output=weights[att + "output.weight"],
                ln_x=pair(weights, att + "ln_x"),
                ffn_mix=torch.stack([weights[ffn + "time_maa_" + c].view(1, 1, -1) for c in "kr"]),
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
    z_k, z_r = torch.addcmul(z, shifted(z, flow.ffn[i]) - z, p.ffn_mix).unbind(0)
    flow.ffn[i] = last(z)
    return (x + channel_mix(z_k, z_r, p.ffn_key, p.ffn_value, p.ffn_receptance),)


def channel_mix(z_k: Tensor, z_r: Tensor, key: Tensor, value: Tensor, receptance: Tensor) -> Tensor:
    """The gated channel mix of RWKV-5 and RWKV-6 on shifted inputs [B,T,C]."""
    return torch.sigmoid(linear(z_r, receptance)) * linear(torch.relu(linear(z_k, key)).square(), value)


def _time_mix(dims: Dims, i: int, p: Layer, z: Tensor, flow: Flow, way: Way) -> Tensor:
    batch, time, _ = z.shape
    d = shifted(z, flow.att[i]) - z
    flow.att[i] = last(z)
    low = torch.tanh(linear(torch.addcmul(z, d, p.maa_x), p.maa_w1))  # [B,T,5M]
    low = low.view(batch * time, 5, -1).transpose(0, 1)
    mix = p.maa + torch.bmm(low, p.maa_w2).view(5, batch, time, -1)
    z_w, z_k, z_v, z_r, z_g = torch.addcmul(z, d, mix).unbind(0)
    decay = linear(torch.tanh(linear(z_w, p.decay[1])), p.decay[2]) + p.decay[0]
    w = -torch.exp(decay.float())  # [B,T,C] log decay, fp32
    r, k, v = linear(z_r, p.receptance), linear(z_k, p.key), linear(z_v, p.value)
    r, w, k, v = (x.view(batch, time, dims.H, dims.K) for x in (r, w, k, v))
    operands = {"r": r, "w": w, "k": k, "v": v, "u": p.faaaa}
    y = apply_wkv(wkv6, wkv6_step, operands, i, flow, way)
    y = head_norm(y, dims.H, *p.ln_x).view(batch, time, -1)
    return linear(y * F.silu(linear(z_g, p.gate)), p.output)
