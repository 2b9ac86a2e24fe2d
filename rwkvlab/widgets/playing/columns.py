"""Columns: the initial states that can stand side by side, by name, and the drop-downs that choose them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.arms import ZERO, name_arms
from rwkvlab.measure.comparing.compare import pin
from rwkvlab.model.engine import Model
from rwkvlab.shapes import check_items
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.widgets.base.buttons import bar, button
from rwkvlab.widgets.picking.sources import Sources

MOST = 16  # columns that can still be told apart on a screen
FIRST = 3  # columns to begin with


class Starts:
    """Initial states by name, the zero state among them; files are read when a column asks for them.

    states: a Shelf, a folder, a mapping of names to states (None: zeros), a list, or one State. `names` are all that
    can be chosen, the zero state first; `reasons` tells why others cannot. Raises ArgError, PathError.
    """

    def __init__(self, states: Any, model: Model) -> None:
        self.given = states
        known: dict[str, State | None] = {}
        if isinstance(states, (str, os.PathLike, Shelf)) or (
            isinstance(states, Sequence) and states and all(isinstance(one, (str, os.PathLike)) for one in states)
        ):
            self.sources = Sources(states, model)
        else:
            known = name_arms(states, zero_first=True)
            self.sources = Sources({name: state for name, state in known.items() if state is not None}, model)
        self._zeros = tuple(name for name, state in known.items() if state is None) or (_free(self.sources),)
        self.reasons = self.sources.reasons
        self._known = list(pin(known, None)) if known else [*self._zeros, *self.sources]
        self._read: dict[str, State] = {}

    @property
    def names(self) -> list[str]:
        """What can be chosen, the zero state first where it is among them."""
        return [name for name in self._known if self.is_zero(name) or name in self.sources]

    @property
    def left_out(self) -> str:
        """Say how many states cannot be chosen, "" where all can."""
        count = len(self.reasons)
        return f"{count} state{' is' if count == 1 else 's are'} left out: playground.starts.reasons" if count else ""

    @property
    def first(self) -> tuple[str, ...]:
        """The columns to begin with: the baseline, the default state, and a few more."""
        names = self.names
        default = [self.sources.default] if len(self.sources) else []
        return tuple(dict.fromkeys([*names[:1], *default, *names]))[:FIRST]

    def is_zero(self, name: str) -> bool:
        """Whether a name stands for zeros that are in no file."""
        return name in self._zeros

    def check(self, columns: Any) -> tuple[str, ...]:
        """Return columns as a tuple of names; raises ArgError where they cannot stand side by side."""
        names = [columns] if isinstance(columns, str) else check_items("columns", columns)
        if not 1 <= len(names) <= MOST:
            raise ArgError(f"columns: need 1 to {MOST} names, got {len(names)}; `lab.compare` takes more")
        for at, name in enumerate(names):
            if isinstance(name, str) and name in self.reasons:
                raise ArgError(f"columns: {show(name)} cannot be used: {self.reasons[name]}")
            if not isinstance(name, str) or name not in self.names:
                raise ArgError(f"columns: no state {show(name)} here; there are {show(', '.join(self.names), 200)}")
            if name in names[:at]:
                raise ArgError(f"columns: {show(name)} stands in column {names.index(name) + 1} already")
        return tuple(names)

    def read(self, columns: Sequence[str]) -> dict[str, State | None]:
        """Return the states of some columns; a file is read once, as long as a column shows it. Raises LoadError."""
        had = self._read
        wanted = [name for name in columns if not self.is_zero(name)]
        self._read = {name: had[name] if name in had else self.sources[name] for name in wanted}
        return {name: self._read.get(name) for name in columns}


class Choice(ipywidgets.VBox):
    """One drop-down a column, the first for the baseline, and buttons for more or fewer columns.

    choose(columns) is told what the person wants; it calls `show` with what stands afterwards.
    """

    def __init__(self, starts: Starts, choose: Callable[[tuple[str, ...]], object]) -> None:
        self._starts, self._tell, self._quiet = starts, choose, False
        self._columns: tuple[str, ...] = ()
        self._menus: list[ipywidgets.Dropdown] = []
        self._more = button("Add column", "plus", "set one more initial state beside these", self._add)
        self._less = button("Remove column", "minus", "take the last column away", self._remove)
        self._bar = bar(self._more, self._less)
        super().__init__([self._bar])
        self.add_class("rwkvlab-columns")

    def show(self, columns: tuple[str, ...]) -> None:
        """Show these columns, one drop-down each."""
        self._quiet = True
        try:
            while len(self._menus) < len(columns):
                self._menus.append(self._menu(len(self._menus)))
            for menu, name in zip(self._menus, columns, strict=False):
                menu.value = name
        finally:
            self._quiet = False
        self._columns = columns
        self._less.disabled = len(columns) == 1
        self._more.disabled = len(columns) >= min(MOST, len(self._starts.names))
        self._bar.children = [*self._menus[: len(columns)], self._more, self._less]

    def _menu(self, at: int) -> ipywidgets.Dropdown:
        title = "column 1, baseline" if at == 0 else f"column {at + 1}"
        options = [(show(name, 120)[1:-1], name) for name in self._starts.names]
        menu = ipywidgets.Dropdown(options=options, description=title, style={"description_width": "initial"})
        menu.tooltip = "the others are set against this state" if at == 0 else "the initial state of this column"
        menu.add_class("rwkvlab-column")
        menu.observe(lambda change: self._on_menu(at, change["new"]), "value")
        return menu

    def _on_menu(self, at: int, name: str) -> None:
        if not self._quiet and at < len(self._columns):
            self._tell((*self._columns[:at], name, *self._columns[at + 1 :]))

    def _remove(self) -> None:
        self._tell(self._columns[:-1])

    def _add(self) -> None:
        free = [name for name in self._starts.names if name not in self._columns]
        self._tell((*self._columns, *free[:1]))


def _free(taken: Mapping[str, object]) -> str:
    """Return a name for the zero state that no state has."""
    name, number = ZERO, 2
    while name in taken:
        name, number = f"{ZERO} ({number})", number + 1
    return name
