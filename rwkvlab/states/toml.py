"""Ai00's Config.toml, read with care: the model folder and the [[state]] entries, every mistake with its place."""

from __future__ import annotations

import math
import os
import re
import tomllib
import uuid
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rwkvlab.errors import ConfigError, PathError, TruncatedError, show
from rwkvlab.tensorfile.source import Source, as_path

MAX_SIZE = 1 << 20  # bytes
MAX_DOTS = 4  # of a key: what one of many parts costs grows with their square
MAX_NESTING = 100
BOM = b"\xef\xbb\xbf"
_FIELDS = {"path": str, "name": str, "id": str, "default": bool}
# strings, those of several lines first, and comments; one that is not closed reaches to the end: none is tried twice
_QUOTED = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}+)?|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}+)?|'[^'\n]*+'?|#[^\n]*+",
    re.DOTALL,
)
_DOTTED = re.compile(rf"(?<![\w-])[\w-]++(?:[ \t]*+\.[ \t]*+[\w-]++){{{MAX_DOTS + 1}}}")
_HYPHENATED = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UUID = re.compile(rf"[0-9a-fA-F]{{32}}|{_HYPHENATED}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED}")


@dataclass(frozen=True)
class StateEntry:
    """One [[state]]: its place in the list, its path as written, name (the file's, where none is given), id, default.

    id is in lower case, "" where there is none. problem says what is wrong with it, beginning with its field; "" if
    nothing is. What could not be read of such an entry is empty; without a name and a path, or with a name that is
    another's id, it is called "state[3]".
    """

    index: int
    path: str
    name: str
    id: str
    default: bool
    problem: str = ""


@dataclass(frozen=True)
class Ai00Config:
    """A Config.toml: its bytes and what they say, the folder that paths are relative to, the entries."""

    raw: bytes
    data: dict[str, Any]
    folder: Path
    entries: tuple[StateEntry, ...]


def read_config(path: str | os.PathLike[str]) -> Ai00Config:
    """Read a Config.toml; what is wrong with one entry is its problem.

    Raises PathError for the file or the model folder, ConfigError for what is no such config at all.
    """
    raw, name = _read(path), show(as_path(path).name)
    data = parse(name, decode(name, raw))
    model = data.get("model", {})
    folder = model.get("path", "assets/models") if isinstance(model, dict) else None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise ConfigError(f'{name}: model.path: need the folder of the models as text, such as "assets/models"')
    listed = data.get("state", [])
    if not isinstance(listed, list) or (listed and not any(isinstance(entry, dict) for entry in listed)):
        raise ConfigError(f"{name}: state: need a list of tables; write [[state]], with two brackets")
    _warn_unknown(name, listed)
    entries = _told_apart([_entry(index, entry) for index, entry in enumerate(listed)])
    return Ai00Config(raw, data, _folder(as_path(path), folder, name), tuple(entries))


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        source = Source(path)
    except TruncatedError as error:
        raise ConfigError(f"{show(as_path(path).name)}: line 1: the file is empty; give Ai00's Config.toml") from error
    except PathError as error:
        if "is a" not in str(error):
            raise
        raise PathError(f"{str(error).partition('; ')[0]}; give Ai00's Config.toml") from error
    with closing(source):
        if source.size > MAX_SIZE:
            raise ConfigError(
                f"{source.name}: has {source.size:,} bytes, at most {MAX_SIZE:,} are read; is it a Config.toml?"
            )
        return source.bytes_at(0, source.size)


def decode(name: str, raw: bytes) -> str:
    """Return the text of a config without a byte order mark; raises ConfigError for other encodings than UTF-8."""
    try:
        return raw.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + len(raw) - len(raw.removeprefix(BOM))
        raise ConfigError(f"{name}: not UTF-8 at byte {at:,}; save it as UTF-8") from error


def _depth(line: str) -> int:
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", line))
    return max(accumulate(steps), default=0)


def parse(name: str, text: str) -> dict[str, Any]:
    """Return what a TOML text says; raises ConfigError, fast also where the text was made to take long."""
    number = 0
    plain = _QUOTED.sub(lambda found: "" if found[0][0] == "#" else "s" + "\n" * found[0].count("\n"), text)
    for number, line in enumerate(plain.split("\n"), 1):
        if _DOTTED.search(line) or _depth(line) > MAX_NESTING:
            raise ConfigError(f"{name}: line {number}: nested too deep; correct the line")
    number -= plain.endswith("\n")
    try:
        return tomllib.loads(text, parse_float=_float)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep or a number too long"
        said = show(why.replace("at end of document", f"at line {number}, the last"), 120)[1:-1]
        raise ConfigError(f"{name}: not TOML: {said}; correct the file") from error


def _float(text: str) -> float:
    """Return a number; every nan is the same object, so that what was read twice is equal."""
    return math.nan if math.isnan(float(text)) else float(text)


def _warn_unknown(name: str, listed: Sequence[Any]) -> None:
    places: dict[str, list[int]] = {}
    for index, entry in enumerate(listed):
        for key in entry if isinstance(entry, dict) else ():
            if key not in _FIELDS:
                places.setdefault(key, []).append(index)
    for key, where in list(places.items())[:20]:
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        warnings.warn(f"{name}: state[{where[0]}]{more}: unknown field {show(key)}, ignored", stacklevel=4)


def _entry(index: int, entry: Any) -> StateEntry:
    where = f"state[{index}]"
    if not isinstance(entry, dict):
        return StateEntry(index, "", where, "", False, f"{where}: need a table, got {show(entry)}; write [[state]]")
    right: dict[str, Any] = {
        key: value for key, value in entry.items() if key in _FIELDS and isinstance(value, _FIELDS[key])
    }
    path, problem = right.get("path", ""), ""
    for key in (key for key in entry if key in _FIELDS and key not in right):
        need = "true or false" if key == "default" else "text"
        problem = problem or f"{where}.{key}: need {need}, got {show(entry[key])}; correct it"
    if "path" not in entry:
        problem = problem or f"{where}.path: missing; give the file, relative to the folder of the models"
    if not problem:
        try:
            check_relative(f"{where}.path", path)
        except ConfigError as error:
            problem = str(error)
    ident = as_id(right.get("id", ""))
    if "id" in right and not ident:
        wrong = f"{where}.id: need a UUID, got {show(right['id'])}; leave it out, or make one with uuidgen"
        problem = problem or wrong
    name = right.get("name") or ("" if problem else PurePosixPath(path.replace("\\", "/")).stem)
    return StateEntry(index, path, name or where, ident, right.get("default", False), problem)


def as_id(text: str) -> str:
    """Return a UUID in its usual spelling, lower case with hyphens; "" for what Ai00 does not read as one."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else ""


def check_relative(where: str, path: str) -> str:
    """Return a relative path that stays inside; raises ConfigError for .., absolute paths, URLs, ~, $ and globs."""
    parts = re.split(r"[/\\]", path)
    outside = ".." in parts or PurePosixPath(path).is_absolute() or bool(PureWindowsPath(path).anchor)
    odd = re.search(r"[\0-\x1f\x7f*?|<>\"$]|://|^file:|^~", path)
    if not path.strip() or outside or odd:
        what = "leaves the folder" if outside else f"holds {show(odd[0])}" if odd else "is empty"
        raise ConfigError(f"{where}: {show(path)} {what}; give a plain path inside the folder of the models")
    return path


def _told_apart(entries: Sequence[StateEntry]) -> list[StateEntry]:
    """Return the entries; a second default, the id of an earlier one or as a name that of another are their problem."""
    told: list[StateEntry] = []
    ids: dict[str, StateEntry] = {}
    for entry in entries:
        ids.setdefault(entry.id, entry)
    default: StateEntry | None = None
    for entry in entries:
        where, problem = f"state[{entry.index}]", entry.problem
        if entry.id and (first := ids[entry.id]) is not entry:
            same = f"is that of state[{first.index}], {show(first.name)}"
            problem = problem or f"{where}.id: {show(entry.id)} {same}; give one of them another"
        if (called := as_id(entry.name)) and (other := ids.get(called, entry)).id != entry.id:
            problem = problem or f"{where}.name: {show(entry.name)} is the id of state[{other.index}]; rename this one"
            entry = replace(entry, name=where)  # the id means the other
        if entry.default and not problem:
            if default is not None:
                taken = f"state[{default.index}], {show(default.name)}, is the default already"
                problem = f"{where}.default: {taken}; keep true in one of them"
            default = default or entry
        told.append(replace(entry, problem=problem))
    return told


def _folder(config: Path, folder: str, name: str) -> Path:
    """Return the model folder: Ai00 resolves it from where it is started, which is the config's folder or one above."""
    places = config.resolve().parents
    for place in list(places)[:3]:
        for written in (folder, folder.replace("\\", "/")):  # the second as Windows writes it
            if os.path.isdir(place / written):
                return (place / written).resolve()
    above = " or ".join(show(place) for place in list(places)[:3])
    raise PathError(f"{name}: model.path: no folder {show(folder)} in {above}; correct it, or make the folder")
