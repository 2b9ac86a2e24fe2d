"""Ai00's Config.toml: its [[state]] entries as a shelf, and a shelf's states as new entries, the rest left alone."""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from rwkvlab.errors import ArgError, ConfigError, RwkvLabError, SaveError, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.ai00_entries import file_of, list_entries, model_name, named
from rwkvlab.states.card import StateCard
from rwkvlab.states.files import load_state, peek_state, save_state
from rwkvlab.states.fits import HasDims
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_files import other_arch
from rwkvlab.states.shelf_table import MOUNTABLE
from rwkvlab.states.state import State
from rwkvlab.states.toml import BOM, MAX_SIZE, Ai00Config, StateEntry, as_id, check_relative, decode, parse, read_config
from rwkvlab.states.toml_insert import insertion
from rwkvlab.tensorfile import atomic_write
from rwkvlab.tensorfile.atomic import check_name
from rwkvlab.tensorfile.source import as_path


def read_ai00(config_toml: str | os.PathLike[str], model: HasDims | None = None) -> Shelf:
    """Return the [[state]] entries of an Ai00 Config.toml as a Shelf, by name and, as `shelf["uuid"]`, by id.

    An id is found in every spelling that Ai00 takes, and as a uuid.UUID. `shelf.default` is the name of the default
    state, or None: also where that one cannot be used. The table tells what Ai00 itself could not mount.

    Paths are relative to `[model] path`, which is looked for in the folder of the config and the two above it; nothing
    in a path is expanded, and a link out of that folder is not followed. A second entry of the same name becomes
    "name (2)". What is wrong with one entry (its fields, an id that an earlier one has, a name that is another's id, a
    second default, a file that is missing, unreadable or does not fit the model) is listed in `shelf.unreadable`, under
    its name or "state[3]", and the others load; unknown fields warn, and a `[model] name` of another architecture than
    the model's. `shelf.refresh()` reads the config again. Raises PathError for the config or the model folder,
    ConfigError for what is no such config.
    """
    path = as_path(config_toml)
    return Shelf.of(str(path), lambda: list_entries(show(path.name), read_config(path)), model)


def write_ai00(shelf: Mapping[str, State], config_toml: str | os.PathLike[str]) -> Path:
    """Add the states of a shelf (or of any mapping of names to states) as [[state]] entries; returns the config's path.

    A state that already lies in the model folder as Ai00's .state is entered as it is; any other is saved there first,
    as `{name}.state` in fp16. The new entries stand behind the last [[state]], or at the end of the file, each with a
    new id; every byte that was there stays. What is there already, name and numbers, is not added again; an entry whose
    file is missing gets it. No file that is there is written to, nor through a link; where one state cannot be saved,
    those that were saved before it are removed again. Warns where a state was made for another architecture than
    `[model] name` says.

    Raises ArgError for what is no mapping of states, ConfigError where the name is taken by another file, by an id or
    by an entry that is wrong, or where the list is written inline, SaveError where a file of that name has other
    values, two states would have one file or a state cannot be written as .state (token-shifts, values above 65504),
    PathError for an impossible name.
    """
    if not isinstance(shelf, Mapping):
        got = type(shelf).__name__
        raise ArgError(f"write_ai00: need a Shelf or a mapping, got {got}; for one state: {{'its name': state}}")
    config, target = read_config(config_toml), as_path(config_toml)
    by_name = dict(named(config))
    if isinstance(shelf, Shelf):
        shelf.check()
    saves: dict[Path, str] = {}
    tables = []
    for name in list(shelf):
        path, is_new = _place(config, by_name.get(name), shelf, name)
        if not os.path.lexists(path):
            if (other := saves.setdefault(path.resolve(), name)) != name:
                raise SaveError(f"{show(name)}: {show(path.name)} is the file of {show(other)}; rename one of them")
        elif is_new:
            _tell(config, name, peek_state(path)[0])
        if is_new:
            inside = path.relative_to(config.folder).as_posix()
            tables.append({"id": str(uuid.uuid4()), "name": name, "path": check_relative(show(name), inside)})
    raw = _with(show(target.name), config, tables) if tables else config.raw
    saved: list[Path] = []
    try:
        for path, name in saves.items():
            state = _state(shelf, name)
            _tell(config, name, state.card)
            saved.append(save_state(state, path, overwrite=False))
        if tables:
            atomic_write(target, lambda file: file.write(raw))
    except Exception:
        _remove(saved, target, raw if tables else b"")
        raise
    return target


def _remove(saved: list[Path], config: Path, raw: bytes) -> None:
    """Remove files that were saved in vain; not where the config names them after all."""
    with contextlib.suppress(OSError):
        if config.read_bytes() != raw:
            for path in saved:
                path.unlink(missing_ok=True)


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
    if entry is not None and entry.problem:
        raise ConfigError(f"{show(name)}: the entry of this name is wrong: {entry.problem}")
    if (ident := as_id(name)) and any(one.id == ident and one is not entry for one in config.entries):
        raise ConfigError(f"{show(name)}: the config has another state with this id; rename the state")
    if (
        entry is not None
        and isinstance(shelf, Shelf)
        and shelf.path(name).resolve() == file_of(config, entry).resolve()
    ):
        return shelf.path(name), False  # it is there as it is, in whatever layout
    own = _own(config, shelf, name)
    if entry is None and own is not None:
        return own, True
    usual = config.folder / check_name(f"{name}.state")
    path = usual if entry is None else _listed(config, name, entry)
    if os.path.islink(path) and not (os.path.exists(path) and path.resolve().is_relative_to(config.folder)):
        why = "is a link to no file in the folder of the models"
        raise SaveError(f"{show(name)}: {show(path.name)} {why}; remove the link, or rename the state")
    if own is not None and path.resolve() == own:
        return own, False
    if os.path.lexists(path) and not _same(path, _state(shelf, name)):
        if entry is not None and path != usual:
            raise _taken(name, entry)
        raise SaveError(
            f"{show(name)}: {show(path.name)} is there with other values; remove that file, or rename the state"
        )
    return path, entry is None


def _state(shelf: Mapping[str, State], name: str) -> State:
    state = shelf[name]
    if not isinstance(state, State):
        raise ArgError(
            f"write_ai00: {show(name)}: need a State, got {type(state).__name__}; open files with load_state"
        )
    return state


def _tell(config: Ai00Config, name: str, card: StateCard) -> None:
    """Warn of a state that was made for another architecture than the config's model has."""
    if said := other_arch(model_name(config), card.arch):
        made, wanted = ARCH_NAMES.get(card.arch, show(card.arch)), ARCH_NAMES.get(said, show(said))
        what = f"made for {made}, and {show(model_name(config))}, the config's model, is {wanted}"
        warnings.warn(f"{show(name)}: {what}; Ai00 does not check it", stacklevel=3)


def _taken(name: str, entry: StateEntry) -> ConfigError:
    what = f"the config has another state of this name, state[{entry.index}] with the file {show(entry.path)}"
    return ConfigError(f"{show(name)}: {what}; rename one of them")


def _listed(config: Ai00Config, name: str, entry: StateEntry) -> Path:
    """Return the file that an entry names; raises ConfigError where Ai00 could not have a state there."""
    try:
        check_relative("path", entry.path)
        path = file_of(config, entry)
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
    inside = path.is_relative_to(config.folder) and peek_state(path)[0].source.endswith(MOUNTABLE)
    return path if inside else None


def _same(path: Path, state: State) -> bool:
    try:
        there = load_state(path)
    except RwkvLabError:
        return False
    half = state.wkv.detach().cpu().half().float()
    return there.wkv.shape == half.shape and torch.equal(there.wkv, half)
