"""Shelf: the states of a folder by name, read when they are asked for; what cannot be read is listed, and why."""

from __future__ import annotations

import difflib
import os
import unicodedata
import warnings
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING

from rwkvlab.errors import UnknownNameError, show
from rwkvlab.states.files import load_state
from rwkvlab.states.fits import HasDims, check_model
from rwkvlab.states.shelf_files import Listing, Slot, as_folders, list_folders
from rwkvlab.states.shelf_table import HTML_ROWS, TEXT_ROWS, Table, code_points
from rwkvlab.states.state import State

if TYPE_CHECKING:
    import pandas as pd

CHECKED = 200  # files whose headers are read at once; of more they are read when something is asked of them


class Shelf(Mapping[str, State]):
    """States by name: `shelf["emoji"]` reads the file, each time anew; iteration and len() read no tensor.

    Listed are the files of a folder (not of folders in it, not hidden ones) that end in .pth, .state, .st or
    .safetensors, and any other file that begins as one of these or as the JSON of Ai00's /api/oai/states does. A link
    is followed wherever it leads, as in a cache of Hugging Face; the table says where it leaves its folder.

    A name is the file's without its suffix; with it where two files would have the same name, with the folder's in
    front where that does not tell them apart, and else the whole path. No two are alike. Names that differ only in how
    a letter is composed (é as one character or two) are two names; another spelling finds a name where it can mean but
    one, and is refused, with the characters, where it can mean several.

    unreadable maps the names of the files that cannot be read, or do not fit the model, to the reason; they are in the
    table and not among the keys. Of up to 200 files all headers are read at once. Of more only the first bytes are
    looked at; a header is read when its state is asked for, by `in`, when its row is shown, and by check(), items(),
    values() and table(), which read them all. What a header rules out then moves from the keys to unreadable.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        model: HasDims | None = None,
    ) -> None:
        """List a folder, or several; with a model, what does not fit it is unreadable.

        Raises PathError if there is no such folder, ArgError for what is no model, nothing for a file in it.
        """
        folders = as_folders(folder)
        self._fill(", ".join(map(str, folders)), lambda: list_folders(folders), model)

    @classmethod
    def of(cls, title: str, files: Callable[[], Listing], model: HasDims | None = None) -> Shelf:
        """Return a shelf of what `files()` lists, now and at each refresh()."""
        shelf = cls.__new__(cls)
        shelf._fill(title, files, model)
        return shelf

    def _fill(self, title: str, files: Callable[[], Listing], model: HasDims | None) -> None:
        self.title, self._files = title, files
        self.model = None if model is None else check_model("model", model)
        self.default: str | None = None
        self._slots: dict[str, Slot] = {}
        self._aliases: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> Shelf:
        """List the files again: new ones, those that went and those that changed; returns self.

        Headers of files that are as they were are not read again; title and model stay, and the default where its state
        does. Raises PathError if the folder went; the shelf is then as it was.
        """
        listing, before = self._files(), {slot.file: slot for slot in self._slots.values() if slot.checked}
        for name, slot in listing.slots.items():
            old = before.get(slot.file)
            if old and slot.stamp and old.stamp == slot.stamp and (old.where, old.note) == (slot.where, slot.note):
                listing.slots[name] = old
        self._slots, self._aliases = listing.slots, listing.aliases
        self._composed: dict[str, list[str]] = {}
        kept = self.default if self.default in self._slots else None
        self.default = listing.default or kept
        return self.check() if len(self._slots) <= CHECKED else self

    def check(self) -> Shelf:
        """Read all headers that were not read yet, no tensors; returns self. Of many, a bar tells how far it is."""
        from tqdm.auto import tqdm

        todo = [slot for slot in self._slots.values() if not slot.checked and not slot.reason]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # load_state says it again
            for slot in tqdm(todo, desc="headers", unit="file", leave=False) if len(todo) > CHECKED else todo:
                slot.check(self.model)
        return self

    def for_model(self, model: HasDims | None) -> Shelf:
        """Return a shelf of the same files as they are now, checked against another model, or against none."""
        other = type(self).of(self.title, self._files, model)
        other.default = self.default if self.default in other._slots else None
        return other

    @property
    def unreadable(self) -> dict[str, str]:
        """The names of the files that cannot be used, as far as that is known, each with the reason."""
        return {name: slot.reason for name, slot in self._slots.items() if slot.reason}

    def __getitem__(self, name: str) -> State:
        """Read a state; raises UnknownNameError (a KeyError) for no such name, else what load_state raises."""
        path = self.path(name)
        return load_state(path, self.model).named(str(self._resolve(name)))

    def path(self, name: str) -> Path:
        """Return the file of a state; raises UnknownNameError, with the reason or with the names that come near."""
        found = self._resolve(name)
        slot = None if found is None else self._slots[found]
        if slot is None:
            raise UnknownNameError(f"{show(self.title)}: {self._hint(name)}")
        slot.check(self.model)
        if slot.reason or not slot.file:
            raise UnknownNameError(f"{show(self.title)}: {show(name)} cannot be used: {slot.reason}")
        return Path(slot.file)

    def _hint(self, name: object) -> str:
        text = str(name)
        if several := self._alike(text):
            names = " or ".join(f"{show(one)} ({code_points(one)})" for one in several)
            return f"{show(text)} ({code_points(text)}) can mean {names}; take the name from list(shelf)"
        names = list(self)
        plain = {_plain(one): one for one in names}
        close = difflib.get_close_matches(_plain(text)[:200], plain, 3, 0.4)
        hint = f"did you mean {', '.join(show(plain[one]) for one in close)}?" if close else "list(shelf) has the names"
        return f"no state {show(text)} among {len(names):,}; {hint}"

    def _resolve(self, name: object) -> str | None:
        """Return the key that a name, an id or another spelling stands for; None where there is none, or several."""
        if isinstance(name, str) and name in self._slots:
            return name
        text = str(name)
        alias = self._aliases.get(text.lower())
        alike = [] if alias or not isinstance(name, str) else self._alike(text)
        return alias or (alike[0] if len(alike) == 1 else None)

    def _alike(self, text: str) -> list[str]:
        """Return the names that are made of the same letters, composed in one way or another."""
        if not self._composed:
            for name in self._slots:
                self._composed.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        return self._composed.get(unicodedata.normalize("NFC", text), [])

    def __contains__(self, name: object) -> bool:
        found = self._resolve(name) if isinstance(name, str) else None
        if found is None:
            return False
        self._slots[found].check(self.model)
        return not self._slots[found].reason

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, slot in self._slots.items() if not slot.reason])

    def __len__(self) -> int:
        return sum(not slot.reason for slot in self._slots.values())

    def items(self) -> ItemsView[str, State]:
        """Return names and states, each read in its turn; check() comes first, so that no bad header stops a loop.

        For a dict of many files: dict(shelf.items()).
        """
        return super(Shelf, self.check()).items()

    def values(self) -> ValuesView[State]:
        """Return the states, as `items` does."""
        return super(Shelf, self.check()).values()

    def find(self, text: str) -> list[str]:
        """Return the names that hold `text`; case, width and composition of characters do not matter."""
        return [name for name in self if _plain(text) in _plain(name)]

    def table(self) -> pd.DataFrame:
        """Return one row a file, unreadable ones included; reads the headers that were not read yet.

        Columns: name, purpose, arch ("RWKV-7"), size (of the model: "3B"), L H V K (of the matrices), date, ctx, MiB
        (of the file), fits (whether the model can take it; missing without a model), reason (why it cannot be used, or
        ""), note (default, links, files of the same numbers), file. purpose, size, date and ctx are what the name says,
        arch what the file says, or else the name. Control and direction characters of texts are escaped.
        """
        return self.check()._table().frame()

    def _table(self, rows: int = 0) -> Table:
        """Return what is shown, the headers of the first rows read."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in list(self)[:rows]:
                self._slots[name].check(self.model)
        return Table(self.title, self._slots, self.model is not None, self.default)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        return self._table(TEXT_ROWS[0]).text()

    def _repr_html_(self) -> str:
        return self._table(HTML_ROWS[0]).html()


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
