"""parse_name: what the name of a checkpoint or state says, as the community writes them; a hint, never a proof."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, fields
from urllib.parse import unquote

from rwkvlab.errors import ArgError, PathError, show
from rwkvlab.states.grammar import EPOCH, EXTENSIONS, MAX_CTX, original, read_stem, split_extension
from rwkvlab.tensorfile.atomic import MAX_NAME as MAX_BYTES
from rwkvlab.tensorfile.atomic import check_name

REQUIRED = ("arch", "kind", "size", "purpose")
MAX_NAME = 4096  # characters; what is beyond says nothing about a model
# the order in which the community writes them, and how
_ORDER = (
    *("arch", "series", "kind", "size", "geometry", "purpose", "data_version", "lang", "progress", "date", "ctx"),
    "quant",
)
_SPELLED = {
    "arch": "x060, x070 or x070a",
    "series": "g1 or g1a4",
    "kind": "World, Pile or Novel",
    "size": "0.4B, 3B or 450M",
    "geometry": "L33-D512",
    "purpose": "chn_文言文QA: '_' in place of '-', and no part that is written as another field is",
    "data_version": "v2.1",
    "lang": "Chn or Eng98%-Other2%",
    "progress": "82%trained, step-100 or final",
    "date": "20241114",
    "ctx": "2048",
    "quant": "Q8_0",
    "ext": ", ".join(EXTENSIONS),
}


@dataclass(frozen=True)
class NameCard:
    """What a file name says; a field is empty (None for ctx) where the name does not say it.

    text is the name as read (percent-decoded), stem the same without ext. arch is "x040" … "x080", with the letter of a
    variant behind ("x070a"); series "g1a4"; kind "World"; size as "1.5B" or "450M" (1B5, 2b9 and 1.5b alike);
    data_version "v2.1"; purpose what is left, such as "chn_文言文QA"; progress "82%trained"; lang "Eng99%-Other1%";
    date "20241114"; ctx in tokens; geometry "L33-D512"; quant "Q8_0"; ext ".pth".
    """

    text: str = ""
    stem: str = ""
    arch: str = ""
    series: str = ""
    kind: str = ""
    size: str = ""
    data_version: str = ""
    purpose: str = ""
    progress: str = ""
    lang: str = ""
    date: str = ""
    ctx: int | None = None
    geometry: str = ""
    quant: str = ""
    ext: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that Ai00's documentation requires in the name of a state and that are empty here."""
        return tuple(field for field in REQUIRED if not getattr(self, field))

    def said(self) -> dict[str, str | int]:
        """Return the fields that are not empty, without text and stem."""
        found = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        return {name: value for name, value in found.items() if value not in ("", None)}

    def format(self, *, required: bool = True) -> str:
        """Return a file name that says these fields, in the community's order; `parse_name` reads each of them back.

        text and stem are not looked at. Raises ArgError where a field that Ai00's documentation requires is empty
        (arch, kind, size, purpose; not if required is False), where a field would be read back as something else (the
        message says as what), and where some system could not keep such a file: see `tensorfile.atomic.check_name`.
        """
        if required and self.missing:
            raise ArgError(
                f"name: {', '.join(self.missing)} {'is' if len(self.missing) == 1 else 'are'} empty, which Ai00's "
                "documentation requires in the name of a state; fill in, or pass required=False"
            )
        parts = [self._part(field) for field in _ORDER]
        name = "-".join(part for part in parts if part) + self._part("ext")
        if (size := len(name.encode("utf-8", "replace"))) > MAX_BYTES:
            raise ArgError(
                f"name {show(name)}: is {size} bytes long, need at most {MAX_BYTES}; shorten the purpose (a letter of "
                "Chinese takes 3 bytes)"
            )
        try:
            check_name(name)
        except PathError as error:
            raise ArgError(str(error)) from error
        if (back := parse_name(name)).said() != self.said() or back.text != name:
            raise ArgError(
                f"name {show(name)}: would be read back as {_shown(back.said())}; change the purpose or leave it out"
            )
        return name

    def _part(self, field: str) -> str:
        """Return how a field stands in a name; raises ArgError where that says something else alone."""
        value = getattr(self, field)
        if value in ("", None):
            return ""
        if not isinstance(value, int if field == "ctx" else str) or isinstance(value, bool):
            raise ArgError(f"name: {field}: need {'an integer' if field == 'ctx' else 'a text'}, got {show(value)}")
        if isinstance(value, int) and not 0 <= value < MAX_CTX:
            raise ArgError(f"name: ctx: need a number of tokens below {MAX_CTX}, got {show(value)}")
        part = f"ctx{value}" if field == "ctx" else _spelled_arch(str(value)) if field == "arch" else str(value)
        back: dict[str, str | int] = {}
        if field == "ext":
            back["ext"] = split_extension(f"a{value}")[1]
        elif field == "lang" and self.kind:  # beside a kind, Jpn is a language
            back |= read_stem(f"World-{part}")
            del back["kind"]
        else:
            back |= read_stem(part)
        if back != {field: value}:
            as_what = f"would be read back as {_shown(back)}" if back else "says nothing in a name"
            raise ArgError(f"name: {field}: {show(value)} {as_what}; write it as in {_SPELLED[field]}")
        return part


def parse_name(name: object) -> NameCard:
    """Read a file name (or the last part of a path) and return what it says; never raises.

    The parts may stand in any order, and the name may be percent-encoded; marks of copies, as " (1)", say nothing.
    """
    text = _last(_last(_text(name)[-MAX_NAME:]), decode=True)
    stem, ext = split_extension(text)
    epoch = EPOCH.fullmatch(original(stem)) if ext == ".pth" else None
    found = read_stem(epoch[1] if epoch else stem)
    return NameCard(text, stem, ext=ext, **found)  # type: ignore[arg-type]


def _text(name: object) -> str:
    try:
        if isinstance(name, (bytes, os.PathLike)):
            name = os.fsdecode(name)
        return name if isinstance(name, str) else str(name)
    except Exception:
        return ""


def _last(text: str, decode: bool = False) -> str:
    """Return what stands behind the last folder in a path; a percent-encoded name may hold folders, too."""
    if decode and "%" in text:
        with suppress(UnicodeDecodeError):  # the "%fa" of "82%faster" is no code
            text = unquote(text, errors="strict")
    return re.split(r"[/\\]", text.replace("\0", "").rstrip("/\\"))[-1]


def _spelled_arch(arch: str) -> str:
    """Return an arch as it stands in names: x060 as rwkv-x060, x070a as rwkv7a."""
    if arch[-1:] in ("a", "b"):
        return f"rwkv{arch[2:3]}{arch[-1]}"
    return f"rwkv-{arch}"


def _shown(said: dict[str, str | int]) -> str:
    return ", ".join(f"{field} {show(value, 40)}" for field, value in said.items()) or "nothing"
