"""Layer by layer: a block on its part of the running state, its activations kept for the way back or computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rwkvlab.model.parts import Flow, Way, linear
from rwkvlab.shapes import Dims


def layerwise(
    block: Callable[..., tuple[Any, ...]],
    i: int,
    flow: Flow,
    way: Way,
    dims: Dims,
    layer: Any,
    *given: Tensor | None,
    quick: Callable[..., tuple[Any, ...]] | None = None,
    back: Callable[..., tuple[Tensor | None, ...]] | None = None,
) -> tuple[Any, ...]:
    """Return `block(i, flow, way, dims, layer, *given)`, which moves flow.wkv[i], flow.att[i] and flow.ffn[i].

    With way.recompute only what enters the layer is kept for the way back (Chen et al. 2016, arXiv 1604.06174). Then
    `quick(i, flow, *given)`, the same without a gradient, may take the place of the first of the two passes, and
    `back(i, tensors, slopes, needed)` that of the second and of the way back: the gradients of (wkv, att, ffn, *given)
    from those of what `block` returns and the three it moves.
    """
    x = given[0]
    if not (way.recompute and torch.is_grad_enabled()) or x is None or x.shape[1] == 1:
        return block(i, flow, way, dims, layer, *given)

    def first(flow: Flow, *given: Tensor | None) -> tuple[Any, ...]:
        return block(i, flow, way, dims, layer, *given) if quick is None else quick(i, flow, *given)

    def again(flow: Flow, *given: Tensor | None) -> tuple[Any, ...]:
        return block(i, flow, replace(way, unread=True), dims, layer, *given)

    through = partial(_by_autograd, partial(_alone, i, again)) if back is None else partial(back, i)
    *out, flow.wkv[i], flow.att[i], flow.ffn[i] = _Recomputed.apply(
        partial(_alone, i, first), through, flow.wkv[i], flow.att[i], flow.ffn[i], *given
    )
    return tuple(out)


def _alone(
    i: int, run: Callable[..., tuple[Any, ...]], wkv: Tensor, att: Tensor, ffn: Tensor, *given: Tensor | None
) -> tuple[Any, ...]:
    """Layer i as a function of tensors: what it returns, and its part of the running state moved on."""
    part: Any = Flow(*({i: x} for x in (wkv, att, ffn)))  # type: ignore[arg-type]
    out = run(part, *given)
    return *out, part.wkv[i], part.att[i], part.ffn[i]


def _by_autograd(
    again: Callable[..., tuple[Any, ...]],
    given: Sequence[Tensor | None],
    slopes: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The gradients of what is `given`, as far as they are needed; `again` makes what has the slopes."""
    given = [None if x is None else x.detach().requires_grad_(need) for x, need in zip(given, needed, strict=True)]
    with torch.enable_grad():
        out = again(*given)
    asked = [(x, g) for x, g in zip(out, slopes, strict=True) if g is not None and x.requires_grad]
    wanted = [x for x, need in zip(given, needed, strict=True) if need and x is not None]
    found = iter([None] * len(wanted))
    if asked and wanted:
        ends, gradients = zip(*asked, strict=True)
        found = iter(torch.autograd.grad(ends, wanted, gradients, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)


class _Recomputed(torch.autograd.Function):
    """A function of tensors that is run once more on the way back: torch's checkpoint costs the host twice as much.

    `back(given, slopes, needed)` runs it then: the values that come of it are not read. Gradients reach the tensors
    that it is given, and nothing else that it uses.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], back: Callable[..., Any], *given: Tensor | None) -> tuple[Any, ...]:
        ctx.back = back
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        return run(*given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        found = ctx.back(ctx.saved_tensors, slopes, needed)
        return None, None, *(x if need else None for x, need in zip(found, needed, strict=True))


def onto(x: Tensor, h: Tensor, weight: Tensor, way: Way) -> Tensor:
    """x + h times weight [out, in]: the end of a layer, which is left out where way.unread."""
    return _Unread.apply(x, h, weight) if way.unread else x + linear(h, weight)


class _Unread(torch.autograd.Function):
    """x + h times a frozen weight [out, in], as far as gradients go: its value is not computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        return slope, slope @ ctx.saved_tensors[0], None
