"""Trace: the states along a text, taken from the kernel's own chunk states, and the operands of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, show
from rwkvlab.model.flow import row_state
from rwkvlab.model.parts import Way
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

KEEP = ("state", "r", "w", "k", "v", "a", "b", "u", "y")


@dataclass(frozen=True)
class Trace:
    """What happened in the WKV heads along a text of T tokens.

    tokens are its ids; positions [n] tells after how many tokens each state was taken: 0, every, 2 * every, …, T.
    heads lists the (layer, head) pairs kept, or is None where all were. kept holds "state" as [n,L,H,V,K], and each
    operand that was asked for as [L,T,H,V or K] ("u" [L,H,K]); with heads, L and H become one axis of that length.
    All fp32 on the CPU. final is the State after the text, token-shifts included.
    """

    tokens: list[int]
    positions: Tensor
    heads: list[tuple[int, int]] | None
    kept: dict[str, Tensor]
    final: State

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.kept:
            raise ArgError(f"trace: {show(name)} was not kept; pass keep=({', '.join(map(repr, self.kept))}, {name!r})")
        return self.kept[name]


def trace(
    model: Model,
    prompt: str | Sequence[int],
    state: State | None = None,
    *,
    every: int = 64,
    heads: Sequence[tuple[int, int]] | None = None,
    keep: Sequence[str] = ("state",),
) -> Trace:
    """Read `prompt` from `state` and keep what was seen every `every` tokens.

    heads: (layer, head) pairs, None for all. keep: some of "state", "r", "w" (the log decay), "k", "v", "a", "b", "y"
    ("u" in RWKV-5 and 6, which have no a and b). Raises ArgError for anything else, PromptError for an empty prompt.
    """
    dims = model.dims
    check_range("every", every, 1, 2**31, whole=True)
    known = [name for name in KEEP if name not in (("u",) if dims.arch == "x070" else ("a", "b"))]
    keep, heads = check_items("keep", keep), heads if heads is None else check_items("heads", heads)
    if unknown := [name for name in keep if name not in known]:
        raise ArgError(f"keep: {dims.arch} has {', '.join(known)}; got {show(unknown[0])}")
    if heads is not None and not heads:
        raise ArgError("heads: empty; give (layer, head) pairs, or None for all")
    for layer, head in heads or ():
        check_range("heads: layer", layer, 0, dims.L - 1, whole=True)
        check_range("heads: head", head, 0, dims.H - 1, whole=True)
    ids = model.encode(prompt)
    if not ids:
        raise ArgError("prompt: there is nothing to trace in an empty text")
    seen: dict[str, list[list[Tensor]]] = {name: [[] for _ in range(dims.L)] for name in keep}

    def tap(layer: int, name: str, tensor: Tensor) -> None:
        if name in seen:
            part = tensor if name == "u" else tensor[0]
            if heads is not None:
                rows = [head for at, head in heads if at == layer]
                part = part[rows] if name == "u" else part[:, rows]
            seen[name][layer].append(part.detach().float().cpu())

    way = Way(backend=model._backend, chunk_states=every, tap=tap)
    with torch.no_grad():
        flow = model.begin([state])
        model.run(torch.tensor([ids]), flow, logits=None, way=way)
    final = row_state(model, flow, 0, state, len(ids))
    pairs = None if heads is None else list(heads)
    # a long text comes in segments, a whole number of `every` each; u has no time axis
    whole = {name: [x[-1] if name == "u" else torch.cat(x) for x in layers] for name, layers in seen.items()}
    kept = {name: _arrange(name, layers, pairs) for name, layers in whole.items()}
    if "state" in kept:
        end = final.wkv if pairs is None else torch.stack([final.wkv[at, head] for at, head in pairs])
        kept["state"] = torch.cat((kept["state"], end[None]))
    positions = torch.tensor([*range(0, len(ids), every), len(ids)])
    return Trace(ids, positions, pairs, kept, final)


def _arrange(name: str, layers: list[Tensor], heads: list[tuple[int, int]] | None) -> Tensor:
    """Join the layers' parts: [L,…] for operands, [n,L,H,V,K] for states; one axis of pairs where heads were chosen."""
    axis = 0 if name == "u" else 1
    if heads is None:
        return torch.stack(layers, dim=axis if name == "state" else 0)
    flat = torch.cat(layers, dim=axis)  # the pairs in the order of their layers
    order = sorted(range(len(heads)), key=lambda i: heads[i][0])
    back = [order.index(i) for i in range(len(heads))]
    chosen = flat.index_select(axis, torch.tensor(back, dtype=torch.int64))
    return chosen if name in ("state", "u") else chosen.transpose(0, 1)
