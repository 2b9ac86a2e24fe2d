"""States become the running state of a batch, and a running state becomes States again; values are always copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rwkvlab.errors import ArgError, show
from rwkvlab.model.parts import Flow
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State, check_fits

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def begin(model: Model, states: Sequence[State | None]) -> Flow:
    """Stack copies of B states [L,H,V,K] into a Flow on the model's device; None is zeros. Raises MismatchError."""
    if not states:
        raise ArgError("states: need at least one")
    for state in states:
        if state is not None and not isinstance(state, State):
            raise ArgError(f"state: need a State or None, got {show(type(state).__name__)}")
        if state is not None:
            check_fits(state, model)
    # a state that several rows start from goes to the device once, and zeros are made there
    known = {id(state): state for state in states if state is not None}
    dims = model.dims

    def stacked(name: str, dtype: torch.dtype, *shape: int) -> list[torch.Tensor]:
        there = {key: getattr(state, name).to(model.device) for key, state in known.items()}
        if len(states) > sum(state is not None for state in states):
            there[id(None)] = torch.zeros(dims.L, *shape, device=model.device)
        rows = [there[id(state)] for state in states]
        if name != "wkv" or any(row.requires_grad for row in rows):  # few launches; else layers that go one by one
            return list(torch.stack(rows, dim=1).to(dtype).unbind(0))  # [L,B,…]
        return [torch.stack([row[i] for row in rows]).to(dtype) for i in range(dims.L)]

    att, ffn = (stacked(name, model.dtype, dims.C) for name in ("att_shift", "ffn_shift"))
    return Flow(stacked("wkv", torch.float32, dims.H, dims.V, dims.K), att, ffn)


def wants_grad(states: Sequence[State | None]) -> bool:
    """Whether any tensor of these states takes part in a graph."""
    known = [state for state in states if isinstance(state, State)]
    return any(x.requires_grad for state in known for x in (state.wkv, state.att_shift, state.ffn_shift))


def finish(model: Model, flow: Flow, starts: Sequence[State | None], tokens: int) -> list[State]:
    """Return one State a row of `flow`, on the CPU, with a card that says what it was read from."""
    return [row_state(model, flow, row, start, tokens) for row, start in enumerate(starts)]


def row_state(model: Model, flow: Flow, row: int, start: State | None, tokens: int) -> State:
    """Return row `row` of a Flow as a State; `start` and `tokens` go into its card's recipe."""
    name = "zero" if start is None else start.card.name or start.card.recipe or "state"
    card = StateCard(
        arch=model.dims.arch,
        base=model.card.fingerprint,
        template="" if start is None else start.card.template,
        recipe=f"read({name}, {tokens} tokens)",
        parents=(name,),
    )
    parts = (torch.stack([layer[row] for layer in layers]).float().cpu() for layers in (flow.wkv, flow.att, flow.ffn))
    return State(next(parts), att_shift=next(parts), ffn_shift=next(parts), card=card)
