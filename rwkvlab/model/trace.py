"""Trace: the states along a text, taken from the kernel's own chunk states, and the operands of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, PromptError, show
from rwkvlab.model.flow import row_state
from rwkvlab.model.parts import Way
from rwkvlab.shapes import Dims, check_items, check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

KEEP = ("state", "r", "w", "k", "v", "a", "b", "u", "y")
SEGMENT = 1024  # tokens read at once
NUMBERS = 2**26  # numbers of states that a kernel returns at once

Heads = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened in the WKV heads along a text of T tokens.

    tokens are its ids; positions [n] tells after how many tokens each state was taken: 0, every, 2 * every, …, T.
    heads lists the (layer, head) pairs kept, or is None where all were. kept holds "state" as [n,L,H,V,K], and each
    operand that was asked for as [L,T,H,V or K] ("u" [L,H,K]); with heads, L and H become one axis of that length.
    All fp32 on the CPU. final is the State after the text, token-shifts included.
    """

    tokens: list[int]
    positions: Tensor
    heads: Heads | None
    kept: dict[str, Tensor]
    final: State

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.kept:
            raise ArgError(f"trace: {show(name)} was not kept; pass keep=({', '.join(map(repr, self.kept))}, {name!r})")
        return self.kept[name]

    def __repr__(self) -> str:
        layers, heads = self.final.wkv.shape[:2]
        where = f"L{layers} H{heads}" if self.heads is None else f"{len(self.heads)} heads"
        size = sum(x.numel() for x in self.kept.values()) * 4 / 2**20
        return f"<Trace of {len(self.tokens)} tokens, {where}, kept {', '.join(self.kept)}, {size:.1f} MiB>"


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
    ("u" in RWKV-5 and 6, which have no a and b). The text is read in segments: beyond what is kept, memory does not
    grow with it. Raises ArgError for anything else, PromptError for an empty prompt or ids that are none.
    """
    dims = model.dims
    every = int(check_range("every", every, 1, 2**31, whole=True))
    names, pairs = _names(keep, dims), None if heads is None else _pairs(heads, dims)
    ids = model.encode(prompt)
    if not ids:
        raise PromptError("prompt: there is nothing to trace in an empty text")
    positions = torch.tensor([*range(0, len(ids), every), len(ids)])
    shapes = {name: _shape(name, dims, len(ids), len(positions), pairs) for name in names}
    kept = {name: torch.empty(shape, dtype=torch.float32) for name, shape in shapes.items()}

    def tap(layer: int, name: str, tensor: Tensor) -> None:
        if name in kept:
            first = at // every if name == "state" else at
            _put(kept[name], name, layer, first, tensor if name == "u" else tensor[0], pairs)

    way = Way(backend=model._backend, chunk_states=every if "state" in kept else None, tap=tap)
    fits = max(1, NUMBERS // (dims.H * dims.V * dims.K))  # states of a layer
    step = min(max(1, SEGMENT // every), fits) * every if "state" in kept else SEGMENT
    with torch.no_grad():
        flow = model.begin([state])
        for at in tqdm(range(0, len(ids), step), delay=2, desc="trace", leave=False):
            model.run(torch.tensor([ids[at : at + step]]), flow, logits=None, way=way)
    final = row_state(model, flow, 0, state, len(ids))
    if "state" in kept:
        kept["state"][-1] = final.wkv if pairs is None else final.wkv[*zip(*pairs, strict=True)]
    return Trace(ids, positions, pairs, kept, final)


def _names(keep: Any, dims: Dims) -> list[str]:
    known = [name for name in KEEP if name not in (("u",) if dims.arch == "x070" else ("a", "b"))]
    names = check_items("keep", keep)
    if unknown := [name for name in names if name not in known]:
        raise ArgError(f"keep: {dims.arch} has {', '.join(known)}; got {show(unknown[0])}")
    return names


def _pairs(heads: Any, dims: Dims) -> Heads:
    pairs = check_items("heads", heads)
    if not pairs:
        raise ArgError("heads: empty; give (layer, head) pairs, or None for all")
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ArgError(f"heads: need (layer, head) pairs, got {show(pair)}")
        check_range("heads: layer", pair[0], 0, dims.L - 1, whole=True)
        check_range("heads: head", pair[1], 0, dims.H - 1, whole=True)
    return [(int(layer), int(head)) for layer, head in pairs]


def _shape(name: str, dims: Dims, tokens: int, states: int, pairs: Heads | None) -> tuple[int, ...]:
    where = (dims.L, dims.H) if pairs is None else (len(pairs),)
    if name == "state":
        return (states, *where, dims.V, dims.K)
    if name == "u":
        return (*where, dims.K)
    return (where[0], tokens, *where[1:], dims.V if name in "vy" else dims.K)


def _put(kept: Tensor, name: str, layer: int, first: int, part: Tensor, pairs: Heads | None) -> None:
    """Write what a layer reported of a segment in its place; part is [n,H,V,K], [T,H,·], or [H,K] for "u"."""
    part = part.detach()
    rows = slice(first, first + len(part))
    if pairs is None:
        into = kept[layer] if name == "u" else kept[rows, layer] if name == "state" else kept[layer, rows]
        into.copy_(part)
        return
    for index, (at, head) in enumerate(pairs):
        if at == layer:
            one = part[head] if name == "u" else part[:, head]
            into = kept[index] if name == "u" else kept[rows, index] if name == "state" else kept[index, rows]
            into.copy_(one)
