"""The table of a shelf, one row a file: as text, as HTML and as a DataFrame; what comes from files cannot act in it."""

from __future__ import annotations

import copy
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.columns import cut, straight, text_width
from rwkvlab.states.names import parse_name
from rwkvlab.states.render import NO_FORMULAS, escape
from rwkvlab.states.shelf_files import Slot
from rwkvlab.states.shelf_names import code_points, stem_of

if TYPE_CHECKING:
    import pandas as pd

TEXT_ROWS, HTML_ROWS = (20, 10), (100, 50)  # shown of what can be used, and of what cannot; the rest is counted
_LIMITS = {"name": 44, "purpose": 24, "arch": 8, "size": 6, "date": 8, "MiB": 9, "fits": 56, "reads": 56, "note": 40}
MOUNTABLE = "(Ai00 .state)"  # how the source of a state ends that Ai00 can read
_LONG = 10_000  # characters of a cell of the DataFrame
_TYPES = dict.fromkeys(("L", "H", "V", "K", "ctx"), "Int64") | {"MiB": "float64", "fits": "boolean"}


class Table:
    """Some slots by name, seen with or without a model: what `Shelf` shows of itself."""

    def __init__(self, title: str, slots: Mapping[str, Slot], with_model: bool, default: str | None) -> None:
        """Take the slots as they are now: nothing is read here, and what another thread reads changes nothing."""
        slots = {name: copy.copy(slot) for name, slot in slots.items()}
        self.title, self.slots, self.default = title, slots, default
        self.verdict = "fits" if with_model else "reads"
        self.usable = [name for name, slot in slots.items() if not slot.reason]
        self.unusable = [name for name, slot in slots.items() if slot.reason]
        self._same = _first_of((slot.twin, name) for name, slot in slots.items() if slot.twin is not None)
        self._alike = _first_of((unicodedata.normalize("NFC", name), name) for name in slots)

    def text(self) -> str:
        """Return the first rows as plain text with straight columns; below, in full, the reasons that were cut."""
        shown, left = self._chosen(*TEXT_ROWS)
        rows = [self._cells(name) for name in shown]
        heads = self._heads(rows)
        table = [heads, *([row[head] for head in heads] for row in rows)]
        limits = [_LIMITS.get(head, 12) for head in heads]
        whys = [
            f"{cut(row['name'], _LIMITS['name'])}: {show(self.slots[name].reason, 600)[1:-1]}"
            for name, row in zip(shown, rows, strict=True)
            if self.slots[name].reason and text_width(row[self.verdict]) > _LIMITS[self.verdict]
        ]
        return "\n".join([f"<Shelf {self._caption()}>", *(straight(table, limits) if rows else []), *whys, *left])

    def html(self) -> str:
        """Return the first rows as HTML."""
        shown, left = self._chosen(*HTML_ROWS)
        rows = [self._cells(name) for name in shown]
        heads = self._heads(rows)
        head = "".join(f"<th>{name}</th>" for name in heads)
        body = "".join(
            f"<tr{_FADED if self.slots[name].reason else ''}>{''.join(_cell(row[head]) for head in heads)}</tr>"
            for name, row in zip(shown, rows, strict=True)
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
        more = "".join(f"<div>{escape(line)}</div>" for line in left)
        return f'<div class="{NO_FORMULAS}"><b>Shelf {escape(self._caption(), 300)}</b>{table}{more}</div>'

    def frame(self) -> pd.DataFrame:
        """Return all rows; see `Shelf.table`."""
        import pandas as pd

        columns = ("name", "purpose", "arch", "size", *"LHVK", "date", "ctx", "MiB", "fits", "reason", "note", "file")
        found = pd.DataFrame([self._row(name) for name in self.slots], columns=list(columns))
        return found.astype(_TYPES)

    def _caption(self) -> str:
        unread = sum(not slot.checked for slot in self.slots.values() if not slot.reason)
        bad = f", {len(self.unusable):,} unreadable" if self.unusable else ""
        todo = f"; {unread:,} headers not read yet, shelf.check() reads them" if unread else ""
        return f"{show(self.title, 60)}: {len(self.usable):,} states{bad}{todo}"

    def _chosen(self, good: int, bad: int) -> tuple[list[str], list[str]]:
        """Return the names that are shown, and lines that count the others."""
        left = [
            f"… {len(names) - limit:,} more{what}"
            for names, limit, what in ((self.usable, good, ""), (self.unusable, bad, " unreadable"))
            if len(names) > limit
        ]
        return self.usable[:good] + self.unusable[:bad], left + (["shelf.table() has all rows"] if left else [])

    def _heads(self, rows: list[dict[str, str]]) -> list[str]:
        """Return the columns that say something; name, size in MiB and the verdict always stand."""
        heads = ["name", "purpose", "arch", "size", "L/H/N", "date", "ctx", "MiB", self.verdict, "note"]
        return [head for head in heads if head in ("name", "MiB", self.verdict) or any(row[head] for row in rows)]

    def _cells(self, name: str) -> dict[str, str]:
        """Return the texts of a row by column, control characters made visible."""
        slot, row = self.slots[name], self._row(name)
        layers, heads, values, keys = row["L"], row["H"], row["V"], row["K"]
        size = f"{keys}" if values == keys else f"{values}x{keys}"
        verdict = f"no: {brief(slot)}" if slot.reason else "yes" if slot.checked else "not checked yet"
        if slot.hint and not slot.reason:
            verdict = f"by its shape, but {slot.hint}"
        cells = {key: "" if row[key] is None else str(row[key]) for key in ("name", "purpose", "arch", "size", "date")}
        cells |= {"L/H/N": f"{layers}/{heads}/{size}" if slot.shape else "", "ctx": str(row["ctx"] or "")}
        cells |= {"MiB": "" if row["MiB"] is None else f"{row['MiB']:.{1 if row['MiB'] >= 1 else 3}f}"}
        cells["purpose"] *= cells["purpose"] != cells["name"]  # nothing was said
        return cells | {self.verdict: show(verdict, 300)[1:-1], "note": row["note"]}

    def _row(self, name: str) -> dict[str, Any]:
        slot = self.slots[name]
        said = parse_name(slot.file or name)
        arch = (slot.card.arch if slot.card else "") or said.arch
        row: dict[str, Any] = {"name": name, "purpose": said.purpose, "arch": ARCH_NAMES.get(arch, arch)}
        row |= {"size": said.size, "date": said.date, "ctx": said.ctx}
        row |= dict(zip("LHVK", slot.shape or (None,) * 4, strict=True))
        row["MiB"] = None if slot.size < 0 else slot.size / 2**20
        known = self.verdict == "fits" and (slot.checked or slot.reason)
        row |= {"fits": not slot.reason if known else None, "reason": slot.reason}
        row |= {"note": self._note(name, slot), "file": slot.file}
        return {
            key: show(value, _LONG)[1:-1] if key not in _TYPES and key not in "LHVK" else value
            for key, value in row.items()
        }

    def _note(self, name: str, slot: Slot) -> str:
        notes = ["the default"] if name == self.default else []
        if slot.twin is not None and self._same[slot.twin][0] != name:
            notes.append(f"unverified: same checksums as {show(self._same[slot.twin][0], 40)}")
        if len(self._alike[unicodedata.normalize("NFC", name)]) > 1:
            notes.append(f"looks like another name: {code_points(name)} here")
        if slot.mounted and slot.card and not slot.card.source.endswith(MOUNTABLE):
            notes.append("Ai00 takes only .st/.state in fp16")
        return "; ".join([*notes, *([slot.note] if slot.note else [])])


_FADED = ' style="opacity:.6"'


def _cell(text: str) -> str:
    return f'<td style="text-align:left">{escape(text, 300)}</td>'


def _first_of(pairs: Iterable[tuple[Any, str]]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for key, name in pairs:
        found.setdefault(key, []).append(name)
    return found


def brief(slot: Slot) -> str:
    """Return the reason in a few words: without the name of the file in front, and without the remedy behind."""
    text = slot.reason.removeprefix(slot.where)
    base = os.path.basename(slot.file)
    for name in (slot.file, base, stem_of(base), slot.card.name if slot.card else ""):
        text = text.removeprefix(f"{show(name)}: ")
    return re.split("; |, in spite of its name|, the model is", text)[0]
