"""items() and values() of a shelf: states read in their turn, one that cannot be read left out with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, ItemsView, Iterator, ValuesView
from typing import TYPE_CHECKING, TypeVar

from rwkvlab.errors import RwkvLabError, show
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.states.shelf import Shelf

T = TypeVar("T")


class Items(ItemsView[str, State]):
    """Names and states of a shelf."""

    _mapping: Shelf

    def __iter__(self) -> Iterator[tuple[str, State]]:
        return _read(self._mapping, lambda name, state: (name, state))


class Values(ValuesView[State]):
    """The states of a shelf."""

    _mapping: Shelf

    def __iter__(self) -> Iterator[State]:
        return _read(self._mapping, lambda _, state: state)


def _read(shelf: Shelf, pick: Callable[[str, State], T]) -> Iterator[T]:
    for name in shelf:
        try:
            state = shelf[name]
        except RwkvLabError as error:
            warnings.warn(f"{show(shelf.title)}: {show(name)} is left out: {error}", stacklevel=2)
            continue
        yield pick(name, state)
