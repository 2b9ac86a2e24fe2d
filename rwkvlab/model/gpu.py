"""The engine: how a model without gradients runs on a GPU, with fused kernels and its decode steps in CUDA graphs."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor
from wkv.layer import fits, gemv

from rwkvlab.model import fused
from rwkvlab.model.fused_back import block_back
from rwkvlab.model.graphs import Graphs
from rwkvlab.model.parts import Flow, Weights
from rwkvlab.shapes import Dims

TOKENS = 2**14  # tokens of all rows that are read at once: large enough for the GPU, and memory stays flat
LEAST = 64  # tokens of a row that are read at once, however many rows


def prepared(version: Any, weights: dict[str, Tensor], dims: Dims) -> tuple[Engine | None, Weights]:
    """Return what runs a checkpoint's weights without gradients on a GPU (None on a CPU), and them, ready for use."""
    if not weights["emb.weight"].is_cuda:
        return None, version.prepare(weights, dims)
    engine = Engine(version, weights, dims)
    ready = version.prepare(weights, dims)
    torch.cuda.empty_cache()  # what was moved left its old places behind
    if engine._fused is None:
        return engine, ready
    quick, back = (partial(one, engine._fused) for one in (fused.block, block_back))
    return engine, ready._replace(quick=quick, back=back)


class Engine:
    """Runs one model: the fused kernels for RWKV-7, else the ordinary pass; a graph for one token after the other."""

    def __init__(self, version: Any, weights: dict[str, Tensor], dims: Dims) -> None:
        """Lay the weights out; where that moves them, `weights` gets views of them (`fused.lay_out`)."""
        self._version = version
        like = weights["emb.weight"]
        self._fused: fused.Fused | None = None
        if dims.arch == "x070" and fits(like.device, dims.C, dims.K, dims.V):
            self._fused = fused.lay_out(weights, dims)
        self._dims, self._device, self._dtype = dims, like.device, like.dtype
        self._graphs: Graphs | None = None
        self._of: weakref.ref[Tensor] | None = None

    def run(self, weights: Weights, tokens: Tensor, flow: Flow, logits: str | None) -> Tensor | None:
        """`Model.run` of tokens [B,T] on the device, T >= 1, without autograd; `weights` are the ordinary ones."""
        rows, count = tokens.shape

        def use(x: Tensor) -> Tensor | None:
            return None if logits is None else self._head(weights, x if logits == "all" else x[:, -1])

        if count == 1:
            return self._decoder(weights).step(tokens, flow, use)
        parts, x = [], None
        for part in tokens.split(max(LEAST, TOKENS // rows), dim=1):
            x = _pass(self._version, self._fused, weights, part, flow)
            if logits == "all":
                parts.append(self._head(weights, x))
        if logits == "last":
            return use(x)  # type: ignore[arg-type]
        return torch.cat(parts, dim=1) if parts else None

    def _decoder(self, weights: Weights) -> Graphs:
        """Return the graphs of these very weights: those of others are dropped."""
        if self._graphs is None or self._of is None or self._of() is not weights.emb:
            self._of = weakref.ref(weights.emb)
            step = partial(_pass, self._version, self._fused, weights)
            self._graphs = Graphs(step, self._dims, self._device, self._dtype)
        return self._graphs

    def _head(self, weights: Weights, x: Tensor) -> Tensor:
        """Return fp32 logits of x [...,C]: summed in fp32, and not rounded in between."""
        flat = x.reshape(-1, x.shape[-1])
        if self._fused is not None and len(flat) == 1:
            y = gemv(flat, weights.head, dtype=torch.float32)
        elif flat.dtype is torch.float32:
            y = flat @ weights.head.t()
        else:
            y = torch.mm(flat, weights.head.t(), out_dtype=torch.float32)
        return y.view(*x.shape[:-1], -1)


def _pass(version: Any, packed: fused.Fused | None, weights: Weights, tokens: Tensor, flow: Flow) -> Tensor:
    """Read tokens [B,T]; no method, so that graphs do not keep the engine alive, and with it the weights."""
    if packed is not None and packed.emb is weights.emb:
        return fused.run(packed, tokens, flow)
    return version.run(weights, tokens, flow)
