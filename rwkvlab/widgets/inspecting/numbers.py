"""The numbers that a StateInspector colours its maps by: tables that are made once for each state, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from rwkvlab.measure.distance import head_distance
from rwkvlab.measure.influence import influence
from rwkvlab.measure.influence_report import Influence
from rwkvlab.measure.spectrum import spectrum
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


class Numbers:
    """What is known of states: `lasting` is what `influence` found for each, as far as it was asked to."""

    def __init__(self) -> None:
        self.lasting: dict[State, Influence] = {}
        self._spectra: dict[State, pd.DataFrame] = {}
        self._distances: dict[tuple[State, State], pd.DataFrame] = {}

    def keep(self, states: Iterable[State]) -> None:
        """Forget all states but these."""
        kept = set(states)
        # new dicts, since another thread may read the old ones
        self.lasting = {state: found for state, found in self.lasting.items() if state in kept}
        self._spectra = {state: found for state, found in self._spectra.items() if state in kept}
        self._distances = {pair: found for pair, found in self._distances.items() if kept.issuperset(pair)}

    def forget_lasting(self) -> None:
        """Forget how long heads last, since another text is to be read."""
        self.lasting = {}

    def read(self, model: Model, text: str, state: State, tick: Callable[[float, float], object]) -> Influence:
        """Read a text from a state and keep what that tells; raises what `influence` raises, and what `tick` does."""
        if state not in self.lasting:
            self.lasting = {**self.lasting, state: influence(model, text, state, tick=tick)}
        return self.lasting[state]

    def maps(self, states: Sequence[State], one: str, two: str) -> list[State | pd.DataFrame] | None:
        """Return what maps of the column `one` are drawn from for a state, or for two with `two` of their difference.

        states: one, or two and their difference. None where something is not known yet.
        """
        found = [self._of_one(state, one) for state in states[:2]]
        if any(each is None for each in found):
            return None
        last = [] if len(states) == 1 else [self._of_two(states[0], states[1], states[2], two)]
        return [*(each for each in found if each is not None), *last]

    def _of_one(self, state: State, name: str) -> State | pd.DataFrame | None:
        if name == "norm":
            return state
        if name == "half_life":
            return self.lasting[state].half_life if state in self.lasting else None
        if state not in self._spectra:
            self._spectra = {**self._spectra, state: spectrum(state)}
        return self._spectra[state]

    def _of_two(self, a: State, b: State, change: State, name: str) -> State | pd.DataFrame:
        if name == "norm":
            return change
        if (a, b) not in self._distances:
            self._distances = {**self._distances, (a, b): head_distance(a, b)}
        return self._distances[a, b]
