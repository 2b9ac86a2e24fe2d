"""Sources: the states of a shelf, a mapping or folders, and of folders added later, as rows that tell what each is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from rwkvlab.errors import ArgError, RwkvLabError, UnknownNameError, show
from rwkvlab.states.fits import HasDims, check_fits
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_names import plain
from rwkvlab.states.state import State
from rwkvlab.widgets.base.code import variable_of
from rwkvlab.widgets.picking.rows import Row, rows_of

Given = Mapping[str, State] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Sources(Mapping[str, State]):
    """States by name, read when they are asked for; `rows` has those too that cannot be used.

    given is a Shelf, any mapping of names to states, a folder or a list of folders. folders are more of them, whose
    files get longer names where a name is taken. With a model, what does not fit it cannot be used. Raises PathError
    where there is no such folder, ArgError for what is none of these.
    """

    def __init__(
        self, given: Given, model: HasDims | None = None, folders: Sequence[str] = (), what: str = "states"
    ) -> None:
        if isinstance(given, (str, os.PathLike, list, tuple)):
            given = Shelf(given, model)
        if isinstance(given, Shelf) and model is not None and given.model is not model:
            given = given.for_model(model)
        if not isinstance(given, Mapping):
            raise ArgError(f"{what}: need a Shelf, a mapping or a folder, got {show(type(given).__name__)}")
        self.base, self.model = given, model
        self.folders: tuple[str, ...] = ()
        self._added: Shelf | None = None
        self._set_folders(folders)

    def _set_folders(self, folders: Sequence[str]) -> None:
        if isinstance(folders, (str, os.PathLike)):
            raise ArgError(f"folders: need a list of folders, got {show(folders)}")
        paths = tuple(os.path.expanduser(str(folder)) for folder in folders)
        self._added = Shelf(list(paths), self.model) if paths else None
        self.folders = paths
        self.list()

    def add(self, folder: str) -> int:
        """List one more folder too; returns how many entries came. Raises PathError, ArgError: all is as before."""
        path = os.path.expanduser(folder.strip())
        if not path:
            raise ArgError("folder: type the path of a folder of states, such as ~/states")
        if os.path.realpath(path) in map(os.path.realpath, self.folders):
            raise ArgError(f"folder: {show(path)} is there already; Refresh looks for new files in it")
        before = len(self.rows)
        self._set_folders([*self.folders, path])
        return len(self.rows) - before

    def refresh(self) -> None:
        """Look for new, gone and changed files; raises PathError where a folder went, all is then as it was."""
        for shelf in (self.base, self._added):
            if isinstance(shelf, Shelf):
                shelf.refresh()
        self.list()

    def list(self) -> None:
        """Make the rows anew from what is known of the files."""
        rows: list[Row] = []
        places: dict[str, tuple[Any, str]] = {}
        files = set()
        for key, row, file in rows_of(self.base, self.model):
            rows.append(row)
            places[row.name] = (self.base, key)
            files.add(os.path.realpath(file) if file else "")
        for key, row, file in rows_of(self._added, self.model):
            if os.path.realpath(file) not in files:
                name = next(name for name in _spellings(key, file) if name not in places)
                rows.append(row._replace(name=name))
                places[name] = (self._added, key)
        # what can be used goes first, each part in the order that its source has
        self.rows: tuple[Row, ...] = tuple(sorted(rows, key=lambda row: row.reason != ""))
        self._places = places
        self._said = {row.name: plain("\n".join((row.name, *row.cells(), row.reason))) for row in rows}
        self.reasons = {row.name: row.reason for row in rows if row.reason}

    @property
    def default(self) -> str:
        """The name of the state to begin with, "" where there is none."""
        name = getattr(self.base, "default", None)
        return str(name) if name in self else next(iter(self), "")

    def find(self, text: str) -> set[str]:
        """Return the names for which each word of `text` stands in what is told of them; those in `reasons` too."""
        words = plain(text).split()
        found = {name for name, said in self._said.items() if all(word in said for word in words)}
        for shelf in (self.base, self._added):
            if isinstance(shelf, Shelf):  # it knows more spellings, such as "x070" of RWKV-7
                keys = set(shelf.find(text))
                found |= {name for name, (where, key) in self._places.items() if where is shelf and key in keys}
        return found

    def __getitem__(self, name: str) -> State:
        """Read a state; raises UnknownNameError, ArgError where it cannot be used, MismatchError, LoadError."""
        if name in self.reasons:
            raise ArgError(f"{show(name)} cannot be used: {self.reasons[name]}")
        where, key = self._places.get(name, (self.base, name))
        if name not in self._places and not isinstance(self.base, Shelf):
            raise UnknownNameError(f"no state {show(name)} here; there are {show(', '.join(self), 200)}")
        state = where[key]
        if not isinstance(state, State):
            raise ArgError(f"{show(name)}: need a State, got {show(type(state).__name__)}")
        if self.model is not None:
            check_fits(state, self.model)
        return state

    def __contains__(self, name: object) -> bool:
        return name in self._places and name not in self.reasons

    def __iter__(self) -> Iterator[str]:
        return (row.name for row in self.rows if not row.reason)

    def __len__(self) -> int:
        return len(self.rows) - len(self.reasons)


class Reader:
    """Reads states by name and keeps those in use, so that a slider does not read a file at every move."""

    def __init__(self, states: Mapping[str, State]) -> None:
        self._states = states
        self._held: dict[str, State] = {}

    def __call__(self, name: str) -> State:
        """Return a state; raises what `states[name]` does."""
        held = self._held
        if name not in held:
            held = self._held = held | {name: self._states[name]}
        return held[name]

    def keep(self, names: Iterable[str]) -> None:
        """Let all others go."""
        self._held = {name: self._held[name] for name in names if name in self._held}

    def first(self, count: int) -> list[str]:
        """Return the names of the first states that can be read."""
        found: list[str] = []
        for name in self._states:
            if len(found) == count:
                break
            with suppress(RwkvLabError):
                self(name)
                found.append(name)
        return found


def _spellings(key: str, file: str) -> Iterator[str]:
    """Yield names for a file, the shortest first, without end."""
    path = Path(file)
    yield from (key, f"{path.parent.name}/{path.name}", str(path))
    number = 2
    while True:
        yield f"{path} ({number})"
        number += 1


def shelf_code(given: Given) -> str:
    """Return how a shelf of what `Sources` was given is written in code."""
    paths = isinstance(given, (str, os.PathLike, list, tuple))
    return f"lab.Shelf({given_code(given)})" if paths else given_code(given)


def given_code(given: Given) -> str:
    """Return how what `Sources` was given is written in code."""
    if isinstance(given, (str, os.PathLike)):
        return repr(os.fspath(given))
    return repr([os.fspath(one) for one in given]) if isinstance(given, (list, tuple)) else variable_of(given, "shelf")


def same(a: State, b: State) -> bool:
    """Tell whether two states hold the same numbers."""
    pairs = ((getattr(a, part), getattr(b, part)) for part in ("wkv", "att_shift", "ffn_shift"))
    return all(torch.equal(one, other) for one, other in pairs)
