"""items() and values() of a shelf: states read in their turn, one that cannot be read left out with a warning."""

from __future__ import annotations

import warnings
from collections.abc import ItemsView, Iterator, ValuesView
from typing import TYPE_CHECKING

from rwkvlab.errors import RwkvLabError, show
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.states.shelf import Shelf


class Items(ItemsView[str, State]):
    """Names and states of a shelf."""

    _mapping: Shelf

    def __iter__(self) -> Iterator[tuple[str, State]]:
        for name in self._mapping:
            try:
                state = self._mapping[name]
            except RwkvLabError as error:
                warnings.warn(f"{show(self._mapping.title)}: {show(name)} is left out: {error}", stacklevel=2)
                continue
            yield name, state


class Values(ValuesView[State]):
    """The states of a shelf."""

    _mapping: Shelf

    def __iter__(self) -> Iterator[State]:
        return (state for _, state in Items(self._mapping))
