"""Ai00's Config.toml, read with care: the model folder and the [[state]] entries, every mistake with its place."""

from __future__ import annotations

import os
import re
import tomllib
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rwkvlab.errors import ConfigError, PathError, show
from rwkvlab.tensorfile.source import Source, as_path

MAX_SIZE = 1 << 20  # bytes
MAX_DOTS = 64
MAX_NESTING = 100
_FIELDS = {"path": str, "name": str, "id": str, "default": bool}


@dataclass(frozen=True)
class StateEntry:
    """One [[state]]: its path as written, its name (the file's, where none is given), its id in lower case or ""."""

    path: str
    name: str
    id: str
    default: bool


@dataclass(frozen=True)
class Ai00Config:
    """A Config.toml: its text, the folder that paths are relative to, the entries."""

    text: str
    folder: Path
    entries: tuple[StateEntry, ...]


def read_config(path: str | os.PathLike[str]) -> Ai00Config:
    """Read a Config.toml; raises PathError for the file or the model folder, ConfigError for what is in it."""
    text, name = _read(path), show(as_path(path).name)
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep or a number too long"
        raise ConfigError(f"{name}: not TOML: {show(why, 120)[1:-1]}; correct the file") from error
    model = data.get("model", {})
    folder = model.get("path", "assets/models") if isinstance(model, dict) else None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise ConfigError(f'{name}: model.path: need the folder of the models as text, such as "assets/models"')
    listed = data.get("state", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ConfigError(f"{name}: state: need a list of tables; write [[state]], with two brackets")
    entries = tuple(_entry(f"{name}: state[{index}]", entry) for index, entry in enumerate(listed))
    _check_unique(name, entries)
    return Ai00Config(text, _folder(as_path(path), folder, name), entries)


def _read(path: str | os.PathLike[str]) -> str:
    source = Source(path)
    try:
        if source.size > MAX_SIZE:
            raise ConfigError(
                f"{source.name}: has {source.size:,} bytes, at most {MAX_SIZE:,} are read; is it a Config.toml?"
            )
        raw = source.bytes_at(0, source.size)
    finally:
        source.close()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source.name}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", line)
        if bare.count(".") > MAX_DOTS or max(bare.count("["), bare.count("{")) > MAX_NESTING:
            raise ConfigError(f"{source.name}: line {number}: nested too deep; correct the line")
    return text


def _entry(where: str, entry: dict[str, Any]) -> StateEntry:
    for key, value in entry.items():
        if key not in _FIELDS:
            warnings.warn(f"{where}: unknown field {show(key)}, ignored", stacklevel=4)
        elif not isinstance(value, _FIELDS[key]):
            need = "true or false" if key == "default" else "text"
            raise ConfigError(f"{where}.{key}: need {need}, got {show(value)}; correct it")
    if "path" not in entry:
        raise ConfigError(f"{where}.path: missing; give the file, relative to the folder of the models")
    path, given = check_relative(f"{where}.path", entry["path"]), entry.get("id", "")
    try:
        ident = str(uuid.UUID(given)) if given else ""
    except ValueError as error:
        raise ConfigError(
            f"{where}.id: need a UUID, got {show(given)}; leave it out, or make one with uuidgen"
        ) from error
    return StateEntry(path, entry.get("name") or PurePosixPath(path).stem, ident, entry.get("default", False))


def check_relative(where: str, path: str) -> str:
    """Return a relative path that stays inside; raises ConfigError for .., absolute paths, URLs, ~, $ and globs."""
    parts = re.split(r"[/\\]", path)
    outside = ".." in parts or PurePosixPath(path).is_absolute() or bool(PureWindowsPath(path).anchor)
    odd = re.search(r"[\0-\x1f\x7f*?|<>\"$]|://|^file:|^~", path)
    if not path.strip() or outside or odd:
        what = "leaves the folder" if outside else f"holds {show(odd[0])}" if odd else "is empty"
        raise ConfigError(f"{where}: {show(path)} {what}; give a plain path inside the folder of the models")
    return path


def _check_unique(name: str, entries: tuple[StateEntry, ...]) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if entry.id and entry.id in seen:
            raise ConfigError(
                f"{name}: state[{seen[entry.id]}].id and state[{index}].id are both {show(entry.id)}; change one"
            )
        seen[entry.id] = index
    defaults = [index for index, entry in enumerate(entries) if entry.default]
    if len(defaults) > 1:
        raise ConfigError(
            f"{name}: state[{defaults[0]}].default and state[{defaults[1]}].default are both true; keep one"
        )


def _folder(config: Path, folder: str, name: str) -> Path:
    """Return the model folder: Ai00 resolves it from where it is started, which is the config's folder or one above."""
    places = config.resolve().parents
    for place in list(places)[:3]:
        if (place / folder).is_dir():
            return (place / folder).resolve()
    above = " or ".join(show(place) for place in list(places)[:3])
    raise PathError(f"{name}: model.path: no folder {show(folder)} in {above}; correct it, or make the folder")
