"""The safetensors header, strictly: nothing twice, no gap, no overlap, every size equal to its shape."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any, NoReturn

import torch

from rwkvlab.errors import FormatError, LimitError, SchemaError, TruncatedError, show
from rwkvlab.tensorfile.entry import Entry, brief, check_count, check_entries, check_sizes
from rwkvlab.tensorfile.source import AGAIN, Source

MAX_HEADER = 16 << 20
# colons, commas and brackets: 20 000 tensors need 240 000, each costs up to 100 bytes and 2 us to parse
MAX_MARKS = 500_000
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def looks_like(head: bytes) -> bool:
    """Tell whether a file starts as a safetensors file does: a plausible length, then `{`."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= struct.unpack_from("<Q", head)[0] <= MAX_HEADER


def too_short(source: Source) -> FormatError:
    """Return the error for a file of a few bytes."""
    return TruncatedError(f"{source.name}: has {source.size} bytes, need more than 9 for any tensor file; {AGAIN}")


def bad_length(source: Source, head: bytes) -> FormatError:
    """Return the error for a header length that cannot be."""
    length = struct.unpack_from("<Q", head)[0]
    return FormatError(
        f"{source.name}: header length: got {length:,}, need 2 to {MAX_HEADER:,} (file: {source.size:,}); {AGAIN}"
    )


def parse(source: Source) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return entries and metadata; raises LoadError of some kind, allocating nothing for tensors."""
    (length,) = struct.unpack("<Q", source.bytes_at(0, 8))
    start = 8 + length
    if start > source.size:
        raise TruncatedError(f"{source.name}: have {source.size:,} bytes, need {start:,} for the header; {AGAIN}")
    header = strict_json(f"{source.name}: header", source.bytes_at(8, length), start=8)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{source.name}: __metadata__: need an object of texts; save it again")
    check_count(source.name, len(header))
    entries = {key: _entry(f"{source.name}: {show(key)}", value, start) for key, value in header.items()}
    _cover(source, entries, start)
    return check_entries(source.name, entries, source.size), metadata


def strict_json(name: str, raw: bytes, start: int = 0) -> dict[str, Any]:
    """Return a JSON object without doubled keys; `name` is how messages call it, `start` where it is in its file.

    Raises FormatError with the place for anything else, LimitError for one of millions of small things.
    """
    if (marks := sum(raw.count(mark) for mark in (b":", b",", b"[", b"{"))) > MAX_MARKS:
        raise LimitError(f"{name}: {marks:,} values, names and brackets; no honest file has more than {MAX_MARKS:,}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FormatError(f"{name}: {show(twice)} is there twice; {AGAIN}")
        return found

    def constant(text: str) -> NoReturn:
        raise FormatError(f"{name}: {text} is not JSON; {AGAIN}")

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
        if re.search(rb"\\u[dD][89a-fA-F]", raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{name}: a text with half of a surrogate pair; {AGAIN}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{name}: not UTF-8 at byte {start + error.start:,}; {AGAIN}") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{name}: not JSON at character {error.pos:,}; {AGAIN}") from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{name}: nested too deep or a number too long; {AGAIN}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{name}: need an object, got {type(value).__name__}; {AGAIN}")
    return value


def _entry(where: str, value: object, start: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: need dtype, shape and data_offsets, nothing else; {AGAIN}")
    name = value["dtype"]
    if not isinstance(name, str) or name not in DTYPES:
        raise SchemaError(f"{where}: dtype: got {show(name)}, need one of {' '.join(DTYPES)}; save it in one of these")
    dtype = DTYPES[name]
    shape, offsets = (
        check_sizes(where, "shape", value["shape"]),
        check_sizes(where, "data_offsets", value["data_offsets"]),
    )
    numel = math.prod(shape)
    if len(offsets) != 2 or offsets[1] - offsets[0] != numel * dtype.itemsize:
        size = numel * dtype.itemsize
        got = f"got {brief(offsets)}, need {size:,} bytes for {brief(shape)}"
        raise FormatError(f"{where}: data_offsets: {got}; {AGAIN}")
    return Entry(dtype, shape, record=start + offsets[0], record_size=numel * dtype.itemsize, span=numel)


def _cover(source: Source, entries: dict[str, Entry], start: int) -> None:
    """Check that the tensors follow each other without gap or overlap and end where the file ends."""
    position = start
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].record, item[1].record_size)):
        if entry.record != position:
            how = "overlaps the tensor before it" if entry.record < position else "leaves a gap before it"
            raise FormatError(f"{source.name}: {show(key)}: data_offsets: {how}; {AGAIN}")
        position += entry.record_size
    if position > source.size:
        raise TruncatedError(f"{source.name}: have {source.size:,} bytes, need {position:,}; {AGAIN}")
    if position < source.size:
        raise FormatError(f"{source.name}: {source.size - position:,} bytes follow the last tensor; {AGAIN}")
