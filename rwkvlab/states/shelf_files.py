"""The files of a shelf: which of a folder are listed, under which names, and what a look or a header tells of them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rwkvlab.errors import LoadError, PathError, RwkvLabError, show
from rwkvlab.states.ai00json import is_json, peek_json
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import HasDims, check_geometry
from rwkvlab.states.hints import hint_against
from rwkvlab.states.layouts import ASSUMED, OURS, find_layout
from rwkvlab.states.names import parse_name
from rwkvlab.states.reading import read_card
from rwkvlab.states.shelf_names import SUFFIXES, name_files
from rwkvlab.tensorfile import TensorFile, read_tensors
from rwkvlab.tensorfile.safetensors import looks_like
from rwkvlab.tensorfile.source import as_path

_HEAD, _TAIL = 4096, 4096  # bytes of a file that a first look reads
_ZIP = b"PK\x03\x04"
_TORCH_MEMBER = re.compile(rb"[^/]+/(data\.pkl|version|byteorder|\.format_version|\.data/serialization_id)")
_NUMBERS = re.compile(rb'"data"\s*:\s*\[\s*-?\d')


@dataclass
class Slot:
    """One file of a shelf ("" for none); reason says why it cannot be used, "" while nothing speaks against it.

    where is what reasons begin with ("state[2].path: "), note what a table says beside, mounted that it is an entry of
    Ai00's config; the rest is known once checked: card, shape [L,H,V,K], twin (equal for files that say in their
    headers that they hold the same numbers; None where they do not say it), and hint, why a state that fits by its
    shape may belong to another architecture.
    """

    file: str
    size: int = -1
    stamp: tuple[int, ...] = ()
    where: str = ""
    note: str = ""
    mounted: bool = False
    reason: str = ""
    checked: bool = False
    card: StateCard | None = None
    shape: tuple[int, ...] = ()
    twin: object = None
    hint: str = ""

    def check(self, model: HasDims | None) -> None:
        """Read the header, once; what is wrong with it, or does not fit the model, becomes the reason."""
        if self.checked or self.reason or not self.file:
            return
        try:
            self.card, self.shape, self.twin = _peek(self.file, model)
            if model is not None:
                check_geometry(self.card, self.shape, model)
                sure = self.card.base or (self.card.arch and not any(n.endswith(ASSUMED) for n in self.card.notes))
                self.hint = "" if sure else hint_against(Path(self.file), model.dims.arch)
        except RwkvLabError as error:
            self.fail(error)
        else:
            self.checked = True

    def fail(self, error: RwkvLabError) -> None:
        """Take note that the file cannot be used; a refresh looks again where its path was the trouble."""
        self.twin, self.reason = None, f"{self.where}{error}"
        self.checked = isinstance(error, LoadError)


@dataclass(frozen=True)
class Listing:
    """The slots of a shelf by name, other names (in lower case) of some, the name of the default state.

    model is the name of the model that they are listed for, "" for none.
    """

    slots: dict[str, Slot]
    aliases: dict[str, str] = field(default_factory=dict)
    default: str | None = None
    model: str = ""


def other_arch(model: str, arch: str) -> str:
    """Return the architecture that a model's name says, where that is not arch; else ""."""
    said = parse_name(model).arch
    return said if arch and said[:3] != arch[:3] else ""


def list_folders(folders: Sequence[Path]) -> Listing:
    """Return the states of some folders by name; raises PathError for what is no readable folder."""
    found: dict[str, Slot] = {}
    seen: set[bytes] = set()
    for folder in folders:
        try:
            if (real := os.path.realpath(os.fsencode(folder))) in seen:
                continue
            seen.add(real)
            with os.scandir(folder) as entries:
                listed = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "not a name that this system can hold"
            raise PathError(f"{show(folder)}: no readable folder ({why}); give the folder of the states") from error
        for entry in listed:
            if slot := _listed(entry):
                found[entry.path] = slot
    return Listing(dict(zip(name_files(list(found)), found.values(), strict=True)))


def _listed(entry: os.DirEntry[str]) -> Slot | None:
    """Return the slot of a directory entry; None for what neither is called a state nor begins as one."""
    named = entry.name.lower().endswith(SUFFIXES)
    try:
        regular = named or entry.is_file()
    except OSError:  # a link that leads back to itself
        regular = named
    if not regular or not (named or is_tensor_file(entry.path)):
        return None
    return look(entry.path, note="a link out of its folder" if entry.is_symlink() and _leaves(entry) else "")


def look(path: str, where: str = "", note: str = "", mounted: bool = False) -> Slot:
    """Return the slot of a file, by its size and first bytes alone; what they rule out gets its reason at once."""
    slot = Slot(path, where=where, note=note, mounted=mounted)
    try:
        info = os.stat(path)
        slot.size = info.st_size
        slot.stamp = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        likely = stat.S_ISREG(info.st_mode) and _is_likely(path)
    except (OSError, ValueError):
        likely = False
    if not likely:
        slot.check(None)
        slot.checked = slot.checked and slot.reason != ""
    return slot


def _is_likely(path: str) -> bool:
    head = _bytes(path)[0]
    return head.startswith(_ZIP) or looks_like(head) or _is_text(head)


def _is_text(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def is_tensor_file(path: str) -> bool:
    """Tell whether a file of any name begins as torch's zip, safetensors or Ai00's JSON of a state do."""
    head, tail = _bytes(path)
    if head.startswith(_ZIP):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return _TORCH_MEMBER.fullmatch(name) is not None
    return looks_like(head) or (_NUMBERS.search(head) is not None and b'"shape"' in head + tail)


def _bytes(path: str) -> tuple[bytes, bytes]:
    """Return the first bytes of a file and, of a JSON text, the last; nothing for what cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b"", b""
    try:
        head = os.read(handle, _HEAD)
        return head, os.pread(handle, _TAIL, max(0, os.fstat(handle).st_size - _TAIL)) if _is_text(head) else b""
    except OSError:
        return b"", b""
    finally:
        os.close(handle)


def _leaves(entry: os.DirEntry[str]) -> bool:
    try:
        return os.path.dirname(os.path.realpath(entry.path)) != os.path.realpath(os.path.dirname(entry.path))
    except OSError:
        return False


def _peek(path: str, model: HasDims | None) -> tuple[StateCard, tuple[int, ...], object]:
    if is_json(path):
        return (*peek_json(path), None)
    with read_tensors(path) as file:
        layout = find_layout(file, None, "" if model is None else model.dims.arch)
        return (*read_card(file, layout), _twin(file))


def _twin(file: TensorFile) -> object:
    """Return what is equal for two files of the same numbers, as stored: our sha256, or torch's CRC-32 of each tensor.

    Whether the numbers are still those, only reading them tells.
    """
    if file.metadata.get("format") == OURS:
        return file.metadata.get("sha256")
    sums = [(key, *file.info(key), file.crc(key)) for key in file]
    return None if any(crc is None for *_, crc in sums) else tuple(sums)


def as_folders(folder: object) -> list[Path]:
    """Return one folder or a list of them as paths; raises PathError."""
    return [as_path(one) for one in folder] if isinstance(folder, (list, tuple)) and folder else [as_path(folder)]
