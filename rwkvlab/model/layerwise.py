"""Layer by layer: a block on its part of the running state, its activations kept for the way back or computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rwkvlab.model.parts import Flow, Way
from rwkvlab.shapes import Dims


def layerwise(
    block: Callable[..., tuple[Any, ...]], i: int, flow: Flow, way: Way, dims: Dims, layer: Any, *given: Tensor | None
) -> tuple[Any, ...]:
    """Return `block(i, flow, way, dims, layer, *given)`, which moves flow.wkv[i], flow.att[i] and flow.ffn[i].

    With way.recompute only what enters the layer is kept for the way back (Chen et al. 2016, arXiv 1604.06174).
    """
    x = given[0]
    if not (way.recompute and torch.is_grad_enabled()) or x is None or x.shape[1] == 1:
        return block(i, flow, way, dims, layer, *given)

    def alone(wkv: Tensor, att: Tensor, ffn: Tensor, *given: Tensor | None) -> tuple[Any, ...]:
        part: Any = Flow(*({i: x} for x in (wkv, att, ffn)))  # type: ignore[arg-type]
        out = block(i, part, way, dims, layer, *given)
        return *out, part.wkv[i], part.att[i], part.ffn[i]

    *out, flow.wkv[i], flow.att[i], flow.ffn[i] = _Recomputed.apply(
        alone, flow.wkv[i], flow.att[i], flow.ffn[i], *given
    )
    return tuple(out)


class _Recomputed(torch.autograd.Function):
    """A function of tensors that is run once more on the way back: torch's checkpoint costs the host twice as much.

    Gradients reach the tensors that it is given, and nothing else that it uses.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Any, ...]], *given: Tensor | None) -> tuple[Any, ...]:
        ctx.run = run
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        return run(*given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        given = [
            None if x is None else x.detach().requires_grad_(need)
            for x, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad():
            out = ctx.run(*given)
        asked = [(x, g) for x, g in zip(out, gradients, strict=True) if g is not None and x.requires_grad]
        wanted = [x for x, need in zip(given, needed, strict=True) if need and x is not None]
        found = iter([None] * len(wanted))
        if asked and wanted:
            ends, slopes = zip(*asked, strict=True)
            found = iter(torch.autograd.grad(ends, wanted, slopes, allow_unused=True))
        return None, *(next(found) if need else None for need in needed)
