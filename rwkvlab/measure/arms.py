"""The arms of a comparison: initial states by name, the zero state among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rwkvlab.errors import ArgError, show
from rwkvlab.states.state import State

ZERO = "zero"
States = Mapping[str, State | None] | Iterable[State | None] | State | None


def name_arms(states: Any, *, zero_first: bool) -> dict[str, State | None]:
    """Return states by name, in order: a mapping's own names, else those of the cards, made unique; None is "zero".

    zero_first puts the zero state in front unless it is among them. Raises ArgError for what is not a state.
    """
    if isinstance(states, Mapping):
        pairs = list(states.items())  # a Shelf leaves out what it cannot read
    elif isinstance(states, State) or states is None:
        pairs = [(_name(states, 0), states)]
    elif isinstance(states, Iterable) and not isinstance(states, (str, bytes)):
        pairs = [(_name(state, at), state) for at, state in enumerate(states)]
    else:
        raise ArgError(f"states: need a mapping, a list of State or a Shelf, got {show(type(states).__name__)}")
    arms: dict[str, State | None] = {}
    if zero_first and not any(_is_zero(state) for _, state in pairs):
        arms[ZERO] = None
    for name, state in pairs:
        if state is not None and not isinstance(state, State):
            raise ArgError(f"states: {show(name)}: need a State or None, got {show(type(state).__name__)}")
        arms[_free(str(name), arms)] = state
    if not arms:
        raise ArgError("states: empty; give at least one State, or None for zeros")
    return arms


def _is_zero(state: Any) -> bool:
    return state is None or (isinstance(state, State) and not state.has_shifts and not state.wkv.any())


def _name(state: Any, at: int) -> str:
    if state is None:
        return ZERO
    return (state.card.name or state.card.recipe if isinstance(state, State) else "") or f"state {at}"


def _free(name: str, taken: Mapping[str, object]) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name} ({number})", number + 1
    return unique
