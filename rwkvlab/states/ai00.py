"""Ai00's Config.toml: its [[state]] entries as a shelf, and a shelf's states as new entries, the rest left alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rwkvlab.errors import ArgError, ConfigError, RwkvLabError, SaveError, show
from rwkvlab.states.files import load_state, peek_state, save_state
from rwkvlab.states.fits import HasDims
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.states.toml import Ai00Config, StateEntry, check_relative, read_config
from rwkvlab.tensorfile import atomic_write
from rwkvlab.tensorfile.atomic import check_name
from rwkvlab.tensorfile.source import as_path


def read_ai00(config_toml: str | os.PathLike[str], model: HasDims | None = None) -> Shelf:
    """Return the [[state]] entries of an Ai00 Config.toml as a Shelf, by name and, as `shelf["uuid"]`, by id.

    `shelf.default` is the name of the default state or None. Paths are relative to `[model] path`, which is looked for
    in the folder of the config and the two above it; nothing in a path is expanded. A second state of the same name
    becomes "name (2)". A file that is missing or unreadable is listed in `shelf.unreadable`. Raises PathError for the
    config or the model folder, ConfigError for what it says.
    """
    config = read_config(config_toml)
    paths: dict[str, Path] = {}
    unreadable: dict[str, str] = {}
    aliases: dict[str, str] = {}
    default = None
    for entry in config.entries:
        name, path, count = entry.name, config.folder / entry.path, 1
        while name in paths or name in unreadable:
            name, count = f"{entry.name} ({count + 1})", count + 1
        if path.resolve().is_relative_to(config.folder):
            paths[name] = path
        else:
            unreadable[name] = f"{show(entry.path)}: is a link out of the folder of the models; copy the file there"
        aliases |= {entry.id: name} if entry.id else {}
        default = name if entry.default else default
    return Shelf.of(str(config_toml), paths, model, aliases=aliases, unreadable=unreadable, default=default)


def write_ai00(shelf: Mapping[str, State], config_toml: str | os.PathLike[str]) -> Path:
    """Add the states of a shelf (or of any mapping of names to states) as [[state]] entries; returns the config's path.

    A state that already lies in the model folder as Ai00's .state is entered as it is; any other is saved there first,
    as `{name}.state` in fp16. Entries that are there stay, as does every other line of the file. Each new entry gets a
    new id. Raises ConfigError where the name is taken by another file, SaveError where a file of that name is in the
    way or a state cannot be written as .state (token-shifts, values above 65504), PathError for an impossible name.
    """
    import tomlkit

    config, target = read_config(config_toml), as_path(config_toml)
    document = tomlkit.parse(config.text)
    table: Any = document.setdefault("state", tomlkit.aot())
    if not isinstance(table, tomlkit.items.AoT):
        raise ConfigError(f"{show(target.name)}: state: is an inline list; write its entries as [[state]] tables first")
    by_name = {entry.name: entry for entry in config.entries}
    new = [name for name in shelf if not _is_there(config, by_name.get(name), shelf, name)]
    places = {name: _place(config, shelf, name) for name in new}
    for name, path in places.items():
        if not path.exists():
            save_state(shelf[name], path)
        entry = tomlkit.table()
        entry.update({"id": str(uuid.uuid4()), "name": name, "path": path.relative_to(config.folder).as_posix()})
        table.append(entry)
    text = tomlkit.dumps(document)
    mark = b"\xef\xbb\xbf" if target.read_bytes().startswith(b"\xef\xbb\xbf") else b""
    atomic_write(target, lambda file: file.write(mark + text.encode()))
    return target


def _is_there(config: Ai00Config, entry: StateEntry | None, shelf: Mapping[str, State], name: str) -> bool:
    if entry is None:
        return False
    listed = (config.folder / entry.path).resolve()
    own = shelf.path(name).resolve() if isinstance(shelf, Shelf) else config.folder / f"{name}.state"
    if listed != own:
        raise ConfigError(f"{show(name)}: the config has a state of this name, {show(entry.path)}; rename one of them")
    if not isinstance(shelf, Shelf) and listed.exists() and not _holds(listed, shelf[name]):
        raise SaveError(
            f"{show(name)}: {show(entry.path)} is there with other values; remove that file, or rename the state"
        )
    return True


def _holds(path: Path, state: State) -> bool:
    try:
        return torch.equal(load_state(path).wkv, state.wkv.detach().cpu().half().float())
    except RwkvLabError:
        return False


def _place(config: Ai00Config, shelf: Mapping[str, State], name: str) -> Path:
    """Return the file that an entry will name: the state's own if Ai00 can read it there, else one to be written."""
    if not isinstance(name, str):
        raise ArgError(f"write_ai00: need names as text, got {type(name).__name__}")
    if isinstance(shelf, Shelf):
        path = shelf.path(name).resolve()
        if path.is_relative_to(config.folder) and peek_state(path)[0].source.endswith("(Ai00 .state)"):
            return path
    path = config.folder / check_name(f"{name}.state")
    check_relative(show(name), path.name)
    # an earlier call that was cut short may have left the very same state
    if path.exists() and not _holds(path, shelf[name]):
        raise SaveError(f"{show(path)}: is there already; rename the state, or remove that file")
    return path
