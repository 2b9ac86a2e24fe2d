"""Prompts are paired with initial states and read: rows of equal length together, long ones in segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, PromptError, show
from rwkvlab.model.parts import Flow
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

SEGMENT = 512  # tokens of a prompt, over all rows, between two looks at whether to stop
SEGMENT_ON_GPU = 2**14

Prompt = str | Sequence[int]


def prompt_ids(model: Model, prompt: Prompt, name: str = "prompt") -> list[int]:
    """Return the ids of a prompt. An empty one is refused: a state alone does not say which token comes next."""
    ids = model.encode(prompt)
    if not ids:
        raise PromptError(f"{name}: empty; give at least one token, such as a newline or [0], the end of text")
    return ids


def as_list(value: Any) -> list[Any]:
    """Return several prompts, or a single one (text, ids or a 1-D tensor), as a list of prompts."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [value]
    items = list(value)
    single = bool(items) and not isinstance(items[0], str) and not hasattr(items[0], "__len__")
    return [value] if single or getattr(value, "ndim", 2) == 1 else items


def pair_rows(
    prompts: Prompt | Sequence[Prompt], states: State | Iterable[State | None] | Mapping[str, State] | None
) -> tuple[list[Prompt], list[State | None]]:
    """Return as many prompts as states: a single one of either serves all rows. ArgError where the numbers differ."""
    texts = as_list(prompts)
    starts: list[Any]
    if isinstance(states, Mapping):
        starts = list(states.values())
    else:
        starts = list(states) if isinstance(states, Iterable) else [states]
    rows = max(len(texts), len(starts))
    if not texts or not starts or any(len(side) not in (1, rows) for side in (texts, starts)):
        raise ArgError(f"states: need one, or one a prompt; got {len(texts)} prompts and {len(starts)} states")
    for start in starts:
        if start is not None and not isinstance(start, State):
            raise ArgError(f"states: need a State or None a row, got {show(type(start).__name__)}")
    return texts * (rows // len(texts)), starts * (rows // len(starts))


def read_prompts(
    model: Model, ids: Sequence[list[int]], starts: Sequence[State | None], stop_reason: Callable[[], str]
) -> tuple[Tensor, Flow] | None:
    """Read B prompts; returns the next token's logits [B,vocab] and the flow, or None where `stop_reason` says to stop.

    Nothing is written to the states. Call it without autograd.
    """
    groups: dict[int, list[int]] = {}
    for row, tokens in enumerate(ids):
        groups.setdefault(len(tokens), []).append(row)
    read: list[tuple[Tensor, Flow]] = []
    for rows in groups.values():
        one = _read_equal(model, torch.tensor([ids[row] for row in rows]), [starts[row] for row in rows], stop_reason)
        if one is None:
            return None
        read.append(one)
    if len(read) == 1:
        return read[0]
    order = [row for rows in groups.values() for row in rows]
    back = [order.index(row) for row in range(len(ids))]
    return torch.cat([logits for logits, _ in read])[back], Flow.cat([flow for _, flow in read]).pick(back)


def _read_equal(
    model: Model, tokens: Tensor, starts: list[State | None], stop_reason: Callable[[], str]
) -> tuple[Tensor, Flow] | None:
    flow = model.begin(starts)
    segment = SEGMENT if model.device.type == "cpu" else SEGMENT_ON_GPU
    parts = tokens.split(max(16, segment // len(tokens)), dim=1)
    logits = None
    for number, part in enumerate(parts):
        if stop_reason():
            return None
        logits = model.run(part, flow, "last" if number == len(parts) - 1 else None)
    assert logits is not None  # every prompt has a token
    return logits, flow
