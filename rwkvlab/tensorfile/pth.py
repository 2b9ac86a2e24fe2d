"""The .pth file (torch's zip format): from the archive and the pickle in it to checked entries."""

from __future__ import annotations

import math
import re
import warnings

from isal.isal_zlib import crc32

from rwkvlab.errors import FormatError, LimitError, SchemaError, show
from rwkvlab.tensorfile.entry import Entry, brief, check_count, check_entries, check_sizes
from rwkvlab.tensorfile.source import AGAIN, Source
from rwkvlab.tensorfile.torchnames import Strided
from rwkvlab.tensorfile.unpickle import unpickle
from rwkvlab.tensorfile.ziplayout import Member, walk

MAX_PICKLE = 8 << 20
_SMALL = {"version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment"}


def parse(source: Source) -> tuple[dict[str, Entry], tuple[str, ...], bool]:
    """Return the entries of a .pth, notes on it, and whether it is a list (keys "0", "1", …) instead of a dict.

    Raises LoadError of some kind, allocating nothing for tensors.
    """
    members = walk(source)
    root = _root(source, members)
    # torch.serialization.set_crc32_options(False) leaves zeros in every field
    unchecked = not any(member.crc for member in members.values())
    if unchecked:
        note = "saved without CRC-32 sums: damaged bytes would go unnoticed"
        warnings.warn(f"{source.name}: {note}", stacklevel=5)
    _check_small(source, members, root)
    pickle = members[root + "data.pkl"]
    if pickle.size > MAX_PICKLE:
        raise LimitError(f"{source.name}: data.pkl has {pickle.size:,} bytes, at most {MAX_PICKLE:,} are read; {AGAIN}")
    data = source.bytes_at(pickle.offset, pickle.size)
    if not unchecked and crc32(data) != pickle.crc:
        raise FormatError(f"{source.name}: its bytes are damaged (CRC-32 differs in data.pkl); {AGAIN}")
    entries: dict[str, Entry] = {}
    tensors, listed = _tensors(source, unpickle(data, source.name))
    check_count(source.name, len(tensors))
    for key, value in tensors.items():
        entries[key] = _entry(f"{source.name}: {show(key)}", value, members, root, not unchecked)
    return check_entries(source.name, entries, source.size), (note,) if unchecked else (), listed


def _root(source: Source, members: dict[str, Member]) -> str:
    root = next(iter(members), "").partition("/")[0] + "/"
    for name in members:
        rest = name.removeprefix(root)
        if not name.startswith(root) or root == "/":
            raise FormatError(f"{source.name}: member {show(name)} lies outside of {show(root)}; {AGAIN}")
        if rest.startswith("code/") or rest == "constants.pkl":
            raise FormatError(
                f"{source.name}: is a TorchScript archive, which is a program; save its state_dict() instead"
            )
        data = rest.removeprefix("data/")
        if rest not in _SMALL and rest != "data.pkl" and (data == rest or not (data.isascii() and data.isalnum())):
            raise FormatError(f"{source.name}: member {show(name)} is none that torch.save writes; {AGAIN}")
    return root


def _check_small(source: Source, members: dict[str, Member], root: str) -> None:
    def content(name: str) -> str:
        member = members[root + name]
        return source.bytes_at(member.offset, min(member.size, 20)).decode("latin-1")

    if root + "byteorder" in members and (order := content("byteorder")) != "little":
        raise FormatError(f"{source.name}: byteorder: got {show(order)}, need 'little'; save it on a PC")
    step = content(".storage_alignment") if root + ".storage_alignment" in members else "64"
    if not re.fullmatch("[1-9][0-9]*", step, re.ASCII) or int(step).bit_count() != 1:
        raise FormatError(f"{source.name}: .storage_alignment: got {show(step)}, need a power of two; {AGAIN}")


def _tensors(source: Source, value: object) -> tuple[dict[str, Strided], bool]:
    """Return the tensors of a dict, or of a list under the names "0", "1", …; and whether it is a list."""
    if isinstance(value, Strided):
        raise SchemaError(f"{source.name}: is one tensor without a name; save a dict of named tensors")
    listed = isinstance(value, list)
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, dict):
        raise FormatError(
            f"{source.name}: holds a {type(value).__name__}, need a dict of tensors; save its state_dict()"
        )
    for key, item in value.items():
        if not isinstance(item, Strided):
            kind = type(item).__name__
            inner = " (its tensors are one level down)" if isinstance(item, dict) else ""
            where = f"item {key} of its list" if listed else show(key)
            raise FormatError(f"{source.name}: {where}: is a {kind}{inner}, need a tensor; save only the tensors")
    return value, listed


def _entry(where: str, value: Strided, members: dict[str, Member], root: str, checked: bool) -> Entry:
    """Return the checked entry of one tensor."""
    storage = value.storage
    member = members.get(f"{root}data/{storage.key}")
    if member is None:
        raise FormatError(f"{where}: its bytes (data/{show(storage.key)}) are missing; {AGAIN}")
    (offset,) = check_sizes(where, "offset", [value.offset])
    shape, stride = check_sizes(where, "shape", value.shape), check_sizes(where, "stride", value.stride)
    (numel,) = check_sizes(where, "storage size", [storage.numel])
    if numel * storage.dtype.itemsize != member.size:
        raise FormatError(
            f"{where}: data/{show(storage.key, 20)[1:-1]} has {member.size:,} bytes, need {numel:,} x"
            f" {storage.dtype.itemsize}; {AGAIN}"
        )
    if len(shape) != len(stride):
        raise FormatError(f"{where}: stride {brief(stride)} does not go with shape {brief(shape)}; {AGAIN}")
    span = _span(where, shape, stride)
    if span and offset + span > numel:  # a view of nothing may begin anywhere
        raise FormatError(f"{where}: reaches to {offset + span:,}, its storage holds {numel:,} numbers; {AGAIN}")
    return Entry(
        storage.dtype,
        shape,
        record=member.offset,
        record_size=member.size,
        offset=offset,
        span=span,
        stride=None if _is_contiguous(shape, stride) else stride,
        crc=member.crc if checked else None,
        member=f"data/{storage.key}",
    )


def _span(where: str, shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return how many numbers a view reaches over; raises FormatError where two of its cells are the same number."""
    if 0 in shape:
        return 0
    span = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
        if step < span:
            raise FormatError(
                f"{where}: stride {brief(stride)} makes cells of {brief(shape)} overlap; save a clone() of it"
            )
        span += (size - 1) * step
    return span


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    if 0 in shape:
        return True
    return all(
        size == 1 or step == math.prod(shape[axis + 1 :])
        for axis, (size, step) in enumerate(zip(shape, stride, strict=True))
    )
