"""Which states a StateInspector takes: States, or those of a shelf by their names, that fit the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from rwkvlab.errors import ArgError, UnknownNameError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.widgets.base.code import state_code, variable_of


class Given:
    """The model and the shelf that an inspector was given; it remembers the names of states on that shelf."""

    def __init__(self, model: Model | None, shelf: Mapping[str, State] | None) -> None:
        if shelf is not None and not isinstance(shelf, Mapping):
            raise ArgError(f"shelf: need a Shelf or a mapping of names to states, got {show(type(shelf).__name__)}")
        self.model, self.shelf = model, shelf
        self._names: dict[State, str] = {}

    def read(self, what: str, given: Any) -> Any:
        """Return the State that was meant, or None where that is the other one.

        Raises ArgError for what is no State, UnknownNameError for a name that is not on the shelf, MismatchError where
        it does not fit the model; and what reading a file raises.
        """
        state = self._on_shelf(what, given) if isinstance(given, str) else given
        if not isinstance(state, State) and (state is not None or what == "state"):
            raise ArgError(f"{what}: need a State, got {show(type(state).__name__)}; open files with load_state")
        if state is not None and self.model is not None:
            check_fits(state, self.model)
        if state is not None and state not in self._names:
            self._names[state] = given if isinstance(given, str) else self._known(state)
        return state

    def keep(self, states: Iterable[State]) -> None:
        """Forget all states but these."""
        kept = set(states)
        self._names = {state: name for state, name in self._names.items() if state in kept}

    def name(self, state: State) -> str:
        """Return the name of a state on the shelf, "" where it is not there."""
        return self._names.get(state, "")

    def code(self, *states: State) -> list[str]:
        """Return the arguments of a call that gives these states, the model and the shelf."""
        pairs = [("model", self.model), ("shelf", self.shelf)]
        named = [f"{name}={variable_of(value, name)}" for name, value in pairs if value is not None]
        return [*(state_code(state, self.shelf, self.name(state)) for state in states), *named]

    def _on_shelf(self, what: str, name: str) -> Any:
        if self.shelf is None:
            raise ArgError(f"{what}: {show(name)} is a name, which needs shelf=…; or give a State")
        try:
            return self.shelf[name]
        except KeyError as error:
            names = show(", ".join(map(str, self.shelf)), 200)[1:-1]
            raise UnknownNameError(f"{what}: no {show(name)} on the shelf; there are {names}") from error

    def _known(self, state: State) -> str:
        """Return the name on the shelf of the very state that was read from there, as far as that can be told."""
        if isinstance(self.shelf, dict):
            return next((name for name, there in self.shelf.items() if there is state), "")
        name = state.card.name
        if self.shelf is None or not name or name not in self.shelf:
            return ""
        there = self.shelf[name]
        same = there.wkv.shape == state.wkv.shape and torch.equal(there.wkv, state.wkv.to(there.wkv.device))
        return name if same else ""
