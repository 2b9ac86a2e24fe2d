"""Shelf: the states of a folder by name, read when they are asked for; what cannot be read is listed, and why."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING

from rwkvlab.errors import ArgError, RwkvLabError, UnknownNameError, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.files import load_state
from rwkvlab.states.fits import HasDims, check_model
from rwkvlab.states.shelf_files import Listing, Slot, as_folders, list_folders, other_arch
from rwkvlab.states.shelf_names import Names
from rwkvlab.states.shelf_table import HTML_ROWS, TEXT_ROWS, Table
from rwkvlab.states.shelf_views import Items, Values
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

    Damaged numbers and NaN show when a state is read. shelf["bad"] then raises, and it moves to unreadable as well, so
    len() and the keys shrink; a loop over items() or values(), and so compare(), leaves it out with a warning and goes
    on. dict(shelf.items()) is a dict of all that can be read; {**shelf} stops at the first that cannot. A refresh()
    gives a file that changed another chance. Threads may share a shelf, also while one refreshes it.
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
        self._default: str | None = None
        self._names = Names()
        self.refresh()

    @property
    def default(self) -> str | None:
        """The name of the default state, one of the keys, or None: also where that state turns out unreadable.

        Can be set to another name; raises UnknownNameError for what is none, or cannot be used.
        """
        return self._default if self._default in self else None

    @default.setter
    def default(self, name: str | None) -> None:
        if name is not None:
            self.path(name)
        self._default = self._names.find(name)

    def refresh(self) -> Shelf:
        """List the files again: new ones, those that went and those that changed; returns self.

        Headers of files that are as they were are not read again; title and model stay, and the default where its state
        does. Raises PathError if the folder went; the shelf is then as it was.
        """
        listing, before = self._files(), {slot.file: slot for slot in self._names.slots.values() if slot.checked}
        for name, slot in listing.slots.items():
            old = before.get(slot.file)
            if old and slot.stamp and old.stamp == slot.stamp and (old.where, old.note) == (slot.where, slot.note):
                listing.slots[name] = old
        self._default = listing.default or (self._default if self._default in listing.slots else None)
        self._names = Names(listing.slots, listing.aliases)
        if self.model is not None and (said := other_arch(listing.model, self.model.dims.arch)):
            what = f"is for {show(listing.model)}, {ARCH_NAMES.get(said, said)}; the model is {self.model.dims}"
            warnings.warn(f"{show(os.path.basename(self.title))}: {what}", stacklevel=5)
        return self.check() if len(listing.slots) <= CHECKED else self

    def check(self) -> Shelf:
        """Read all headers that were not read yet, no tensors; returns self. Of many, a bar tells how far it is."""
        from tqdm.auto import tqdm

        todo = [slot for slot in self._names.slots.values() if not slot.checked and not slot.reason]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # load_state says it again
            for slot in tqdm(todo, desc="headers", unit="file", leave=False) if len(todo) > CHECKED else todo:
                slot.check(self.model)
        return self

    def for_model(self, model: HasDims | None) -> Shelf:
        """Return a shelf of the same files as they are now, checked against another model, or against none."""
        other = type(self).of(self.title, self._files, model)
        other._default = self._default if self._default in other._names.slots else None
        return other

    @property
    def unreadable(self) -> dict[str, str]:
        """The names of the files that cannot be used, as far as that is known, each with the reason."""
        return {name: slot.reason for name, slot in self._names.slots.items() if slot.reason}

    def __getitem__(self, name: str) -> State:
        """Read a state; raises UnknownNameError (a KeyError) for no such name, else what load_state raises."""
        found, slot = self._find(name)
        try:
            return load_state(slot.file, self.model).named(found)
        except RwkvLabError as error:
            slot.fail(error)
            raise

    def path(self, name: str) -> Path:
        """Return the file of a state; raises UnknownNameError, with the reason or with the names that come near."""
        return Path(self._find(name)[1].file)

    def _find(self, name: object) -> tuple[str, Slot]:
        """Return the key and the slot of a file that, by its header, can be used; raises UnknownNameError."""
        names = self._names  # another thread may put new ones there
        found = names.find(name)
        if found is None:
            raise UnknownNameError(f"{show(self.title)}: {names.hint(name)}")
        slot = names.slots[found]
        slot.check(self.model)
        if slot.reason or not slot.file:
            raise UnknownNameError(f"{show(self.title)}: {show(name)} cannot be used: {slot.reason}")
        return found, slot

    def __contains__(self, name: object) -> bool:
        names = self._names
        found = names.find(name)
        if found is None:
            return False
        names.slots[found].check(self.model)
        return not names.slots[found].reason

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.usable())

    def __len__(self) -> int:
        return len(self._names.usable())

    def items(self) -> ItemsView[str, State]:
        """Return names and states, each read in its turn; one that cannot be read moves to unreadable, with a warning.

        check() comes first. For a dict of many files: dict(shelf.items()).
        """
        return Items(self.check())

    def values(self) -> ValuesView[State]:
        """Return the states, as `items` does."""
        return Values(self.check())

    def find(self, text: str) -> list[str]:
        """Return the names for which each word of `text` stands in the name, or in what it says, as in table().

        find("文言文 0.1b"), find("RWKV-7 emoji"): case, width and composition of characters do not matter. Raises
        ArgError for what is no text.
        """
        if not isinstance(text, str):
            raise ArgError(f"find: need a text, got {type(text).__name__}; list(shelf) has all names")
        return self._names.search(text)

    def table(self) -> pd.DataFrame:
        """Return one row a file, unreadable ones included; reads the headers that were not read yet.

        Columns: name, purpose, arch ("RWKV-7"), size (of the model: "3B"), L H V K (of the matrices), date, ctx, MiB
        (of the file), fits (whether the model can take it; missing without a model), reason (why it cannot be used, or
        ""), note (default, links, files of the same stored checksums, which damage does not change), file.
        purpose, size, date and ctx are what the name says, arch what the file says, or else the name. Control and
        direction characters of texts are escaped.
        """
        return self.check()._table().frame()

    def _table(self, rows: int = 0) -> Table:
        """Return what is shown, the headers of the first rows read."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in list(self)[:rows]:
                self._names.slots[name].check(self.model)
        return Table(self.title, self._names.slots, self.model is not None, self._default)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        return self._table(TEXT_ROWS[0]).text()

    def _repr_html_(self) -> str:
        return self._table(HTML_ROWS[0]).html()
