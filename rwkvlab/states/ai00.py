"""Ai00's Config.toml: its [[state]] entries as a shelf, and a shelf's states as new entries, the rest left alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from rwkvlab.errors import ArgError, ConfigError, RwkvLabError, SaveError, show
from rwkvlab.states.files import load_state, peek_state, save_state
from rwkvlab.states.fits import HasDims
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_files import Listing, Slot, look
from rwkvlab.states.state import State
from rwkvlab.states.toml import BOM, MAX_SIZE, Ai00Config, StateEntry, check_relative, decode, parse, read_config
from rwkvlab.states.toml_insert import insertion
from rwkvlab.tensorfile import atomic_write
from rwkvlab.tensorfile.atomic import check_name
from rwkvlab.tensorfile.source import as_path


def read_ai00(config_toml: str | os.PathLike[str], model: HasDims | None = None) -> Shelf:
    """Return the [[state]] entries of an Ai00 Config.toml as a Shelf, by name and, as `shelf["uuid"]`, by id.

    `shelf.default` is the name of the default state or None. Paths are relative to `[model] path`, which is looked for
    in the folder of the config and the two above it; nothing in a path is expanded, and a link out of that folder is
    not followed. A second entry of the same name becomes "name (2)". What is wrong with one entry (its fields, an id
    that an earlier one has, a second default, a file that is missing, unreadable or does not fit the model) is listed
    in `shelf.unreadable`, under its name or "state[3]", and the others load; unknown fields warn. `shelf.refresh()`
    reads the config again. Raises PathError for the config or the model folder, ConfigError for what is no such config.
    """
    path = as_path(config_toml)
    return Shelf.of(str(path), lambda: _list(show(path.name), read_config(path)), model)


def _list(name: str, config: Ai00Config) -> Listing:
    listing = Listing({})
    default = None
    for called, entry in _named(config):
        listing.slots[called] = _slot(name, config, entry)
        if entry.problem:
            continue
        if entry.id:
            listing.aliases[entry.id] = called
        default = called if entry.default else default
    return Listing(listing.slots, listing.aliases, default)


def _named(config: Ai00Config) -> Iterator[tuple[str, StateEntry]]:
    """Yield each entry with the name that it has on a shelf; no two are alike."""
    taken: set[str] = set()
    count: dict[str, int] = {}
    for entry in config.entries:
        name = entry.name
        while name in taken:
            count[entry.name] = count.get(entry.name, 1) + 1
            name = f"{entry.name} ({count[entry.name]})"
        taken.add(name)
        yield name, entry


def _slot(name: str, config: Ai00Config, entry: StateEntry) -> Slot:
    """Return the slot of an entry: its file after a first look, or what is wrong with the entry."""
    if entry.problem:
        return Slot("", where=f"{name}: ", reason=f"{name}: {entry.problem}")
    where, note = f"{name}: state[{entry.index}].path: ", "" if entry.id else "no id: Ai00 makes one at each start"
    path = _file(config, entry)
    try:
        inside = path.resolve().is_relative_to(config.folder)
    except (OSError, RuntimeError):  # a link that leads back to itself: the look says so
        inside = True
    if not inside:
        why = f"{show(entry.path)}: is a link out of the folder of the models; copy the file there"
        return Slot("", where=where, note=note, reason=where + why)
    if not os.path.lexists(path):
        why = f"{show(entry.path)}: no such file in {show(config.folder)}; {_hint(entry.path, config.folder)}"
        return Slot("", where=where, note=note, reason=where + why)
    return look(str(path), where, note)


def _file(config: Ai00Config, entry: StateEntry) -> Path:
    """Return the file of an entry; a path as Windows writes it is meant where there is no other such file."""
    path = config.folder / entry.path
    if "\\" in entry.path and not os.path.lexists(path):
        return config.folder / entry.path.replace("\\", "/")
    return path


def _hint(path: str, folder: Path) -> str:
    """Return what to do about a file that is missing: bytes of GBK can be valid UTF-8, with other letters."""
    if path.isascii():
        return "check the name and the folder"
    try:
        meant = path.encode().decode("gbk")
    except UnicodeDecodeError:
        meant = ""
    cjk = any("\u4e00" <= char <= "\u9fff" for char in path)
    if meant and (os.path.lexists(folder / meant) or not cjk):
        return f"in GBK its bytes are {show(meant)}: save the config as UTF-8"
    return "check the name, and that the config was saved as UTF-8"


def write_ai00(shelf: Mapping[str, State], config_toml: str | os.PathLike[str]) -> Path:
    """Add the states of a shelf (or of any mapping of names to states) as [[state]] entries; returns the config's path.

    A state that already lies in the model folder as Ai00's .state is entered as it is; any other is saved there first,
    as `{name}.state` in fp16. The new entries stand behind the last [[state]], or at the end of the file, each with a
    new id; every byte that was there stays. What is there already, name and numbers, is not added again; an entry whose
    file is missing gets it. Raises ConfigError where the name is taken by another file or the list is written inline,
    SaveError where a file of that name has other values or a state cannot be written as .state (token-shifts, values
    above 65504), PathError for an impossible name.
    """
    config, target = read_config(config_toml), as_path(config_toml)
    by_name = dict(_named(config))
    if isinstance(shelf, Shelf):
        shelf.check()
    saves: dict[str, Path] = {}
    tables = []
    for name in shelf:
        path, is_new = _place(config, by_name.get(name), shelf, name)
        if not path.exists():
            saves[name] = path
        if is_new:
            inside = path.relative_to(config.folder).as_posix()
            tables.append({"id": str(uuid.uuid4()), "name": name, "path": check_relative(show(name), inside)})
    raw = _with(show(target.name), config, tables) if tables else config.raw
    for name, path in saves.items():
        save_state(shelf[name], path)
    if tables:
        atomic_write(target, lambda file: file.write(raw))
    return target


def _with(name: str, config: Ai00Config, tables: list[dict[str, str]]) -> bytes:
    """Return the config with more entries; raises ConfigError unless the result says exactly what it did and these."""
    text = decode(name, config.raw)
    at, new = insertion(text, "state", tables)
    mark = BOM if config.raw.startswith(BOM) else b""
    try:
        raw = mark + (text[:at] + new + text[at:]).encode()
        said = parse(name, raw.removeprefix(BOM).decode())
    except (ConfigError, UnicodeEncodeError) as error:
        raise ConfigError(
            f"{name}: state: cannot be added to: it is an inline list, or a name is no Unicode text; write its entries "
            "as [[state]] tables first"
        ) from error
    if said != config.data | {"state": [*config.data.get("state", []), *tables]} or len(raw) > MAX_SIZE:
        raise ConfigError(f"{name}: state: adding {len(tables):,} entries would change the rest; write them by hand")
    return raw


def _place(config: Ai00Config, entry: StateEntry | None, shelf: Mapping[str, State], name: str) -> tuple[Path, bool]:
    """Return the file of a state, to be written if it is not there yet, and whether the config needs a new entry."""
    if not isinstance(name, str):
        raise ArgError(f"write_ai00: need names as text, got {type(name).__name__}")
    own = _own(config, shelf, name)
    if entry is None and own is not None:
        return own, True
    usual = config.folder / check_name(f"{name}.state")
    path = usual if entry is None else _listed(config, name, entry)
    if own is not None and path.resolve() == own:
        return own, False
    if path.exists() and not _same(path, shelf[name]):
        if entry is not None and path != usual:
            raise _taken(name, entry)
        raise SaveError(
            f"{show(name)}: {show(path.name)} is there with other values; remove that file, or rename the state"
        )
    return path, entry is None


def _taken(name: str, entry: StateEntry) -> ConfigError:
    what = f"the config has another state of this name, state[{entry.index}] with the file {show(entry.path)}"
    return ConfigError(f"{show(name)}: {what}; rename one of them")


def _listed(config: Ai00Config, name: str, entry: StateEntry) -> Path:
    """Return the file that an entry names; raises ConfigError where Ai00 could not have a state there."""
    try:
        check_relative("path", entry.path)
        path = _file(config, entry)
        if path.resolve().is_relative_to(config.folder) and path.suffix.lower() in (".state", ".st"):
            return path
    except (ConfigError, OSError, RuntimeError):
        pass
    raise _taken(name, entry)


def _own(config: Ai00Config, shelf: Mapping[str, State], name: str) -> Path | None:
    """Return the file of a state if it lies in the model folder and Ai00 can read it there."""
    if not isinstance(shelf, Shelf):
        return None
    path = shelf.path(name).resolve()
    inside = path.is_relative_to(config.folder) and peek_state(path)[0].source.endswith("(Ai00 .state)")
    return path if inside else None


def _same(path: Path, state: State) -> bool:
    try:
        there = load_state(path)
    except RwkvLabError:
        return False
    half = state.wkv.detach().cpu().half().float()
    return there.wkv.shape == half.shape and torch.equal(there.wkv, half)
