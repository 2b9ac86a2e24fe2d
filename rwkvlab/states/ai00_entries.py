"""The [[state]] entries of Ai00's config as files of a shelf: names, ids, paths, and what is wrong with one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rwkvlab.errors import show
from rwkvlab.states.shelf_files import Listing, Slot, look
from rwkvlab.states.toml import Ai00Config, StateEntry


def list_entries(name: str, config: Ai00Config) -> Listing:
    """Return the entries as slots by name, and by id in every spelling; name is how reasons call the config."""
    listing = Listing({})
    default = None
    for called, entry in named(config):
        listing.slots[called] = _slot(name, config, entry)
        if entry.problem:
            continue
        if entry.id:
            spelled = (entry.id, entry.id.replace("-", ""), f"{{{entry.id}}}", f"urn:uuid:{entry.id}")
            listing.aliases.update(dict.fromkeys(spelled, called))
        default = called if entry.default else default
    return Listing(listing.slots, listing.aliases, default, model_name(config))


def named(config: Ai00Config) -> Iterator[tuple[str, StateEntry]]:
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
    path = file_of(config, entry)
    try:
        inside = path.resolve().is_relative_to(config.folder)
    except (OSError, RuntimeError):  # a link that leads back to itself: the look says so
        inside = True
    if not inside:
        why = f"{show(entry.path)}: is a link out of the folder of the models; copy the file there"
        return Slot("", where=where, note=note, reason=where + why)
    if not os.path.lexists(path):
        why = f"{show(entry.path)}: no such file in {show(config.folder)}; {_missing(entry.path, config.folder)}"
        return Slot("", where=where, note=note, reason=where + why)
    return look(str(path), where, note, mounted=True)


def file_of(config: Ai00Config, entry: StateEntry) -> Path:
    """Return the file of an entry; a path as Windows writes it is meant where there is no other such file."""
    path = config.folder / entry.path
    if "\\" in entry.path and not os.path.lexists(path):
        return config.folder / entry.path.replace("\\", "/")
    return path


def _missing(path: str, folder: Path) -> str:
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


def model_name(config: Ai00Config) -> str:
    """Return the name of the model that the config is for, "" where it says none."""
    name = config.data.get("model", {}).get("name", "")
    return name if isinstance(name, str) else ""
