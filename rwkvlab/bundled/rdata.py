"""Texts out of an R package's lazy-load database (data/Rdata.rdx and Rdata.rdb), read strictly: strings and numbers."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from typing import Any

from rwkvlab.errors import FormatError, show

MAX_TEXT = 2**24  # characters of one string, items of one list: far above what a novel needs
_NULL, _SYMBOL, _PAIRS, _CHARS, _LOGICAL, _INTS, _STRINGS, _LIST, _REFERENCE = 254, 1, 2, 9, 10, 13, 16, 19, 255


def read_database(index: bytes, data: bytes) -> dict[str, list[str]]:
    """Return the character vectors of a lazy-load database by name: `index` is its .rdx file, `data` its .rdb.

    The index is a gzipped R serialisation (XDR, version 2 or 3) whose `variables` give the offset and the length of
    each object; an object is the length of its bytes (4 bytes, big endian) and a zlib stream. Raises FormatError for
    whatever is not strings: functions, environments, other compressions.
    """
    found = _Reader(_unpacked(gzip.decompress, index)).document()
    variables = found.get("variables") if isinstance(found, dict) else None
    if not isinstance(variables, dict):
        raise FormatError("R database: the index has no list of variables; give the .rdx file of a package's data")
    texts = {}
    for name, place in variables.items():
        if not isinstance(place, list) or len(place) != 2 or not all(isinstance(x, int) for x in place):
            raise FormatError(f"R database: {show(name)}: need an offset and a length, got {show(place)}")
        at, size = place
        packed = data[max(at, 0) : max(at, 0) + max(size, 0)]
        if len(packed) != size or size < 5:
            raise FormatError(f"R database: {show(name)}: lies at {at} with {size} bytes; the file has {len(data)}")
        plain = _unpacked(zlib.decompress, packed[4:])
        if len(plain) != struct.unpack(">I", packed[:4])[0]:
            raise FormatError(f"R database: {show(name)}: {len(plain)} bytes, its head says otherwise")
        lines = _Reader(plain).document()
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise FormatError(f"R database: {show(name)}: is no vector of strings")
        texts[name] = lines
    return texts


def _unpacked(decompress: Callable[[bytes], bytes], data: bytes) -> bytes:
    try:
        return decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"R database: cannot be decompressed ({show(error)}); take the package anew") from error


class _Reader:
    """Reads one value of R's XDR serialisation."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._symbols = data, 0, list[str]()

    def document(self) -> Any:
        """Return the value: lists of strings or numbers, dicts for named lists."""
        if self._take(2) != b"X\n":
            raise FormatError("R data: not in XDR format")
        version = self._int()
        self._take(8)
        if version == 3:
            self._take(self._size())  # the native encoding
        elif version != 2:
            raise FormatError(f"R data: serialisation version {version}, need 2 or 3")
        value = self._value()
        if self._at != len(self._data):
            raise FormatError(f"R data: {len(self._data) - self._at} bytes behind the value")
        return value

    def _value(self) -> Any:
        flags = self._int()
        kind, has_attributes = flags & 0xFF, bool(flags & 0x200)
        if kind == _NULL:
            return None
        if kind == _SYMBOL:
            self._symbols.append(self._value())
            return self._symbols[-1]
        if kind == _REFERENCE:
            index = (flags >> 8) or self._int()
            if not 1 <= index <= len(self._symbols):
                raise FormatError(f"R data: reference {index} of {len(self._symbols)}")
            return self._symbols[index - 1]
        if kind == _CHARS:
            return self._take(self._size()).decode("utf-8", "replace")
        if kind == _PAIRS:
            return self._pairs(flags)
        if kind not in (_LOGICAL, _INTS, _STRINGS, _LIST):
            raise FormatError(f"R data: a value of type {kind}; only strings, whole numbers and lists are read")
        read = self._int if kind in (_LOGICAL, _INTS) else self._value
        items = [read() for _ in range(self._size())]
        attributes = self._value() if has_attributes else {}
        names = attributes.get("names") if isinstance(attributes, dict) else None
        if names and (not isinstance(names, list) or len(names) != len(items)):
            raise FormatError(f"R data: {len(items)} items, other names")
        return dict(zip(names, items, strict=True)) if names else items

    def _pairs(self, flags: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while flags & 0xFF == _PAIRS:
            if flags & 0x200 or not flags & 0x400:
                raise FormatError("R data: a pair list without tags, or with attributes of its own")
            tag = self._value()
            found[tag] = self._value()
            flags = self._int()
        if flags & 0xFF != _NULL:
            raise FormatError(f"R data: a pair list ends with type {flags & 0xFF}")
        return found

    def _int(self) -> int:
        return int(struct.unpack(">i", self._take(4))[0])

    def _size(self) -> int:
        size = self._int()
        if not 0 <= size <= MAX_TEXT:
            raise FormatError(f"R data: a size of {size}, at most {MAX_TEXT} are read")
        return size

    def _take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise FormatError(f"R data: ends at byte {len(self._data)}, needs {self._at + size}")
        self._at += size
        return part
