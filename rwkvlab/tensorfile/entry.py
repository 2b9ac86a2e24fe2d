"""What is known about a tensor in a file before it is read, and the checks that every format shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rwkvlab.errors import FormatError, LimitError, SchemaError

MAX_DIMS = 8
MAX_TENSORS = 20_000  # the largest published model has about 2 000
MAX_EMPTY = 64
MAX_SIZE = 1 << 62


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    record and record_size are the bytes of the member (safetensors: of the tensor), offset where in it the tensor
    begins and span how far it reaches, both in elements; stride is None for a contiguous tensor, crc the CRC-32 of the
    record or None, member what messages call the record.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    record: int
    record_size: int
    span: int
    offset: int = 0
    stride: tuple[int, ...] | None = None
    crc: int | None = None
    member: str = ""


def check_sizes(where: str, what: str, values: object) -> tuple[int, ...]:
    """Return a list or tuple of whole numbers >= 0 as a tuple; raises FormatError, naming the field `what`."""
    if not isinstance(values, (list, tuple)) or len(values) > MAX_DIMS:
        raise FormatError(f"{where}: {what}: need a list of at most {MAX_DIMS} sizes; download or save it again")
    for value in values:
        if type(value) is not int or not 0 <= value < MAX_SIZE:
            shown = value if type(value) is int and abs(value) < 1 << 80 else type(value).__name__
            raise FormatError(f"{where}: {what}: need whole numbers >= 0, got {shown}; download or save it again")
    if what == "shape" and math.prod(value or 1 for value in values) >= MAX_SIZE:
        raise FormatError(f"{where}: {what}: {brief(values)} is beyond any file; download or save it again")
    return tuple(values)


def brief(values: Sequence[int]) -> str:
    """Return sizes for a message, "[2, 3]", cut where they are many and long."""
    text = str(list(values))
    return text if len(text) <= 60 else text[:59] + "…"


def check_count(name: str, count: int) -> None:
    """Raise SchemaError where a file has no tensors, LimitError where it has too many: before any is looked at."""
    if not count:
        raise SchemaError(f"{name}: holds no tensors; give the file with the weights or the state")
    if count > MAX_TENSORS:
        raise LimitError(f"{name}: {count:,} tensors, at most {MAX_TENSORS:,} are read; no honest file has more")


def check_entries(name: str, entries: dict[str, Entry], file_size: int) -> dict[str, Entry]:
    """Return `entries`; raises LimitError for too many empty ones or for more bytes than the file has."""
    empty = sum(0 in entry.shape for entry in entries.values())
    if empty > MAX_EMPTY:
        raise LimitError(f"{name}: {len(entries):,} tensors, {empty:,} of them empty; no honest file needs that")
    total = sum(math.prod(entry.shape) * entry.dtype.itemsize for entry in entries.values())
    if total > file_size:
        raise LimitError(
            f"{name}: its tensors take {total:,} bytes, the file has {file_size:,}: some share their bytes; "
            "save each tensor as its own clone()"
        )
    return entries
