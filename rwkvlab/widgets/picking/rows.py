"""The rows of a list of states: what is told of each entry of a shelf or a mapping, and why some cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rwkvlab.errors import ArgError, RwkvLabError, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.fits import HasDims, check_fits
from rwkvlab.states.names import parse_name
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State

LONG = 300  # characters of a text in a row
# what the texts of a row are called, and whether they are numbers
COLUMNS = (
    *(("state", False), ("purpose", False), ("made for", False), ("model", True), ("L/H/N", False), ("date", False)),
    *(("MiB", True), ("note", False)),
)


class Row(NamedTuple):
    """What is told of one entry: numbers are None where nothing is known, reason is "" where it can be used."""

    name: str
    purpose: str
    arch: str
    size: str
    shape: str
    date: str
    mib: float | None
    note: str
    reason: str

    def cells(self) -> tuple[str, ...]:
        """Return its texts, as COLUMNS has them; control and direction characters are escaped."""
        mib = "" if self.mib is None else f"{self.mib:.{1 if self.mib >= 1 else 3}f}"
        purpose = "" if self.purpose == self.name else self.purpose  # nothing was said
        texts = (self.name, purpose, self.arch, self.size, self.shape, self.date, mib, self.note)
        return tuple(show(text, LONG)[1:-1] for text in texts)


def rows_of(source: Any, model: HasDims | None) -> Iterator[tuple[str, Row, str]]:
    """Yield for each entry its key, its row and its file ("" for none)."""
    if isinstance(source, Shelf):
        yield from _rows_of_shelf(source)
        return
    known = dict(getattr(source, "unreadable", {}))
    for name in [*(source or ()), *known]:
        try:
            reason = known.get(name, "")
            state = None if reason else source[name]
            if state is not None and not isinstance(state, State):
                raise ArgError(f"is no State but a {show(type(state).__name__)[1:-1]}")
            if state is not None and model is not None:
                check_fits(state, model)
        except RwkvLabError as error:
            state, reason = None, str(error)
        said = parse_name(str(name))
        arch = said.arch if state is None else state.card.arch or said.arch
        shape = "" if state is None else _shape(state.wkv.shape)
        mib = None if state is None else state.wkv.nbytes / 2**20
        yield (
            name,
            Row(name, said.purpose, ARCH_NAMES.get(arch, arch), said.size, shape, said.date, mib, "", reason),
            "",
        )


def _rows_of_shelf(shelf: Shelf) -> Iterator[tuple[str, Row, str]]:
    table = shelf.table()
    # the table has names that cannot act; each group of equal ones has the order of the shelf
    names: dict[tuple[str, bool], list[str]] = {}
    for group, bad in ((list(shelf), False), (list(shelf.unreadable), True)):
        for name in group:
            names.setdefault((show(name, 10_000)[1:-1], bad), []).append(name)
    for said in table.astype(object).where(table.notna(), None).to_dict("records"):
        name = names[str(said["name"]), bool(said["reason"])].pop(0)
        purpose, arch, size, date, note = (said[key] or "" for key in ("purpose", "arch", "size", "date", "note"))
        shape = "" if said["L"] is None else _shape([said[letter] for letter in "LHVK"])
        mib = None if said["MiB"] is None else float(said["MiB"])
        row = Row(name, purpose, arch, size, shape, date, mib, note, shelf.unreadable.get(name, said["reason"]))
        yield name, row, said["file"] or ""


def _shape(shape: Sequence[int]) -> str:
    layers, heads, values, keys = shape
    return f"{layers}/{heads}/{keys if values == keys else f'{values}x{keys}'}"
