"""The names of a shelf: one for each file, the file that one means, and those that come near where it means none."""

from __future__ import annotations

import difflib
import os
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rwkvlab.errors import show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.names import parse_name

if TYPE_CHECKING:
    from rwkvlab.states.shelf_files import Slot

SUFFIXES = (".pth", ".state", ".st", ".safetensors")


@dataclass(frozen=True)
class Names:
    """The slots of a shelf by name, and other names (in lower case) of some.

    A refresh makes new ones and changes none, so that threads see either, each whole.
    """

    slots: Mapping[str, Slot] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: object) -> str | None:
        """Return the name that a name, an id or another spelling stands for; None for none, or several."""
        if isinstance(name, uuid.UUID):
            return self.aliases.get(str(name))
        if not isinstance(name, str):
            return None
        if name in self.slots:
            return name
        alike = self.alike(name)
        return self.aliases.get(name.lower()) or (alike[0] if len(alike) == 1 else None)

    def alike(self, text: str) -> list[str]:
        """Return the names that are made of the same letters, composed in one way or another."""
        return self._composed.get(unicodedata.normalize("NFC", text), [])

    def usable(self) -> list[str]:
        """Return the names of the files that nothing speaks against, as far as that is known."""
        return [name for name, slot in self.slots.items() if not slot.reason]

    def hint(self, name: object) -> str:
        """Return why a name is none, and the names that come near."""
        text = str(name)
        if several := self.alike(text):
            said = " or ".join(f"{show(one)} ({code_points(one)})" for one in several)
            return f"{show(text)} ({code_points(text)}) can mean {said}; take the name from list(shelf)"
        names = self.usable()
        spelled = {plain(one): one for one in names}
        same = [one for one in names if plain(stem_of(one.rpartition("/")[2])) == plain(text)]
        close = same or [spelled[one] for one in difflib.get_close_matches(plain(text)[:200], spelled, 3, 0.4)]
        hint = f"did you mean {', '.join(map(show, close[:3]))}?" if close else "list(shelf) has the names"
        return f"no state {show(text)} among {len(names):,}; {hint}"

    def search(self, text: str) -> list[str]:
        """Return the usable names for which each word of `text` stands in what is said of the file."""
        words = plain(text).split()
        found = []
        for name in self.usable():
            card = self.slots[name].card
            said = self._said[name] + (f"\n{plain(_arch(card.arch))}" if card else "")
            if all(word in said for word in words):
                found.append(name)
        return found

    @cached_property
    def _composed(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.slots:
            found.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        return found

    @cached_property
    def _said(self) -> dict[str, str]:
        """What each name and its file's say, as the table shows it, in one text."""
        found = {}
        for name, slot in self.slots.items():
            said = parse_name(slot.file or name)
            ctx = "" if said.ctx is None else f"ctx{said.ctx}"
            fields = (name, said.stem, said.purpose, _arch(said.arch), said.kind, said.size, said.date, ctx)
            found[name] = plain("\n".join(fields))
        return found


def plain(text: str) -> str:
    """Return `text` without differences of case, width or composition."""
    return unicodedata.normalize("NFKC", text).casefold()


def code_points(text: str) -> str:
    """Return the characters beyond ASCII as U+00E9 and so on, the first eight of them."""
    points = [f"U+{ord(char):04X}" for char in text if not char.isascii()]
    return " ".join(points[:8]) + (" …" if len(points) > 8 else "")


def _arch(arch: str) -> str:
    return f"{arch}\n{ARCH_NAMES.get(arch, '')}"


def name_files(paths: Sequence[str]) -> list[str]:
    """Return a name for each of some different paths, no two alike: see `Shelf`."""
    length = [0] * len(paths)
    while True:
        same: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            same.setdefault(_spelling(path, length[index]), []).append(index)
        clashes = [group for group in same.values() if len(group) > 1]
        if not clashes:
            return list(same)
        for group in clashes:
            shortest = min(length[index] for index in group)
            for index in group:
                length[index] += length[index] == shortest


def _spelling(path: str, length: int) -> str:
    folder, name = os.path.split(path)
    match length:
        case 0:
            return stem_of(name)
        case 1:
            return name
        case 2:
            return f"{os.path.basename(os.path.abspath(folder))}/{name}"
    return path


def stem_of(name: str) -> str:
    """Return a file name without the suffix of a state file."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and (dot + suffix).lower() in (*SUFFIXES, ".json") else name
