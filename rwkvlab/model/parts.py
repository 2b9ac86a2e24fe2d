"""The pieces that all RWKV versions share: token shift, LayerNorm pairs, the per-head norm and the state in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.shapes import Dims

LN_EPS = 1e-5
GN_EPS = 64e-5
SHARED = 2**18  # cells of a matrix from which sharing it among threads pays

# tap(layer, name, tensor): called with the operands of every layer's WKV, for `trace` and `influence`
Tap = Callable[[int, str, Tensor], None]


NormWeights = tuple[Tensor, Tensor]


class Weights(NamedTuple):
    """All weights of a model, ready for use; layers holds the `Layer` tuples of its version.

    quick(i, flow, x, …): layer i without a gradient, in fewer kernels, where there are such, and back: the way back
    through it, as in `layerwise`.
    """

    dims: Dims
    emb: Tensor
    ln0: NormWeights
    layers: list[Any]
    ln_out: NormWeights
    head: Tensor
    quick: Callable[..., tuple[Any, ...]] | None = None
    back: Callable[..., tuple[Tensor | None, ...]] | None = None


@dataclass
class Flow:
    """The state of B texts while it is being computed: one tensor a layer, owned by whoever runs the model.

    wkv[i] is [B,H,V,K] fp32, att[i] and ffn[i] are [B,C] in the dtype of the weights. steps counts the tokens that were
    read one by one.
    """

    wkv: list[Tensor]
    att: list[Tensor]
    ffn: list[Tensor]
    steps: int = 0

    def pick(self, rows: list[int]) -> Flow:
        """Return copies of some rows, in this order."""
        wkv, att, ffn = ([layer[rows] for layer in layers] for layers in (self.wkv, self.att, self.ffn))
        return Flow(wkv, att, ffn, self.steps)

    @staticmethod
    def cat(flows: list[Flow]) -> Flow:
        """Return the rows of several flows, one after the other, copied."""
        wkv, att, ffn = (
            [torch.cat(layers) for layers in zip(*(getattr(flow, name) for flow in flows), strict=True)]
            for name in ("wkv", "att", "ffn")
        )
        return Flow(wkv, att, ffn)


@dataclass(frozen=True)
class Way:
    """How a pass is computed: the WKV backend, and what to report on the way.

    recompute: under autograd, no layer's activations are kept: they are computed once more on the way back,
    and gradients reach the initial state, not the weights. unread: of what a layer returns only the gradient counts.
    """

    backend: str | None = None
    chunk_states: int | None = None
    tap: Tap | None = None
    recompute: bool = False
    unread: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing is reported on the way and no slow backend is asked for: any shorter way will do."""
        return self.tap is None and self.chunk_states is None and self.backend in (None, "triton")


def frame(weights: Mapping[str, Tensor], dims: Dims, layers: list[Any]) -> Weights:
    """Put the prepared layers between the embedding and the head."""
    ln0, ln_out = pair(weights, "blocks.0.ln0"), pair(weights, "ln_out")
    return Weights(dims, weights["emb.weight"], ln0, layers, ln_out, weights["head.weight"])


def frame_shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of what every version has: embedding, head, norms and the large matrices."""
    C = dims.C
    norms = ["blocks.0.ln0", "ln_out"]
    norms += [f"blocks.{i}.{name}" for i in range(dims.L) for name in ("ln1", "ln2", "att.ln_x")]
    table: dict[str, tuple[int, ...]] = {"emb.weight": (dims.vocab, C), "head.weight": (dims.vocab, C)}
    table |= {f"{name}.{part}": (C,) for name in norms for part in ("weight", "bias")}
    for i in range(dims.L):
        table |= {f"blocks.{i}.att.{name}.weight": (C, C) for name in ("receptance", "key", "value", "output")}
        table |= {f"blocks.{i}.ffn.key.weight": (dims.ffn, C), f"blocks.{i}.ffn.value.weight": (C, dims.ffn)}
    return table


def norm(x: Tensor, weight_bias: NormWeights) -> Tensor:
    """LayerNorm over the last axis."""
    return F.layer_norm(x, (x.shape[-1],), *weight_bias, LN_EPS)


def shifted(z: Tensor, previous: Tensor) -> Tensor:
    """Return z one token later: [B,T,C] with `previous` [B,C] in front."""
    if z.shape[1] == 1:
        return previous[:, None]
    return torch.cat((previous[:, None], z[:, :-1]), dim=1)


def last(z: Tensor) -> Tensor:
    """Return z [B,T,C] at the last token as a tensor of its own, which does not keep the rest of z in memory."""
    return z[:, -1].clone()


def rows_at(x: Tensor, at: Tensor) -> Tensor:
    """Return [N,C], the N tokens of x [B,T,C] that a mask [B,T] names; with a mask on the CPU no GPU is waited for."""
    return x.flatten(0, 1).index_select(0, at.flatten().nonzero()[:, 0].to(x.device, non_blocking=True))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] times weight [out, in]; one vector alone takes the way of `matvec`."""
    if x.numel() == x.shape[-1] and not torch.is_grad_enabled():
        return matvec(weight, x.view(-1)).view(*x.shape[:-1], -1)
    return F.linear(x, weight)


def matvec(weight: Tensor, x: Tensor) -> Tensor:
    """weight [out, in] times x [in]; large fp32 matrices on a CPU are shared among the threads.

    BLAS reads a matrix for one vector on one core alone, which leaves half of the memory's bandwidth unused (measured:
    15 to 20 GB/s on one core of two, 28 to 33 on both); a batched product of slices of the rows uses all cores.
    """
    rows, columns = weight.shape
    threads = torch.get_num_threads() if weight.dtype is torch.float32 and weight.device.type == "cpu" else 1
    if threads == 1 or rows % threads or weight.numel() < SHARED:
        return torch.mv(weight, x)
    slices = weight.unflatten(0, (threads, rows // threads)).mT  # [threads, in, out / threads]
    return torch.bmm(x.view(1, 1, columns).expand(threads, 1, columns), slices).view(rows)


def head_norm(y: Tensor, heads: int, weight: Tensor, bias: Tensor) -> Tensor:
    """GroupNorm of y [B,T,H,V] over each head; returns [B*T, H*V] in the dtype of the weight."""
    flat = y.reshape(-1, heads * y.shape[-1]).to(weight.dtype)
    return F.group_norm(flat, heads, weight, bias, GN_EPS)


def pair(weights: Mapping[str, Tensor], prefix: str) -> NormWeights:
    """Weight and bias of a norm."""
    return weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]


def apply_wkv(
    full: Callable[..., tuple[Tensor, ...]],
    step: Callable[..., Tensor],
    operands: dict[str, Tensor],
    i: int,
    flow: Flow,
    way: Way,
) -> Tensor:
    """Apply a WKV operator to layer i's operands [B,T,H,·], moving flow.wkv[i]; returns y [B,T,H,V].

    A single token without a gradient takes the in-place `step`; `u`, which has no time axis, goes through as it is.
    """
    graph = torch.is_grad_enabled()
    if way.plain and operands["r"].shape[1] == 1 and not graph:
        now = (x if name == "u" else x[:, 0] for name, x in operands.items())
        return step(*now, flow.wkv[i])[:, None]
    extra = {} if way.chunk_states is None else {"chunk_states": way.chunk_states}
    y, flow.wkv[i], *states = full(*operands.values(), flow.wkv[i], backend=way.backend, **extra)
    if way.tap is not None:
        for name, x in (operands | {"y": y} | dict(zip(("state",), states, strict=False))).items():
            way.tap(i, name, x)
    return y
