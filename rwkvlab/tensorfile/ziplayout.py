"""The strict walk through a .pth archive: where each stored member lies, every byte accounted for."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rwkvlab.errors import FormatError, LimitError, TruncatedError, show
from rwkvlab.tensorfile.source import AGAIN, Source

MAX_MEMBERS = 20_000
MAX_DIRECTORY = 16 << 20  # bytes

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Member:
    """One stored member: its name, where its bytes begin, how many, and their CRC-32."""

    name: str
    offset: int
    size: int
    crc: int


def walk(source: Source) -> dict[str, Member]:
    """Return the members by name. Raises FormatError, TruncatedError or LimitError unless the archive is plain:

    stored members only, one of them data.pkl, one after the other from byte 0 to the directory, which ends the file.
    """
    count, start, size, end = _directory(source)
    name = source.name
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise LimitError(f"{name}: {count:,} members in a directory of {size:,} bytes; torch.save writes far fewer")
    if start + size != end:
        raise FormatError(f"{name}: the directory of the archive does not end where it should; {AGAIN}")
    position, members = 0, dict[str, Member]()
    for entry, raw, extra in _entries(name, source.bytes_at(start, size), count):
        member, position = _member(source, entry, raw, extra, position)
        if member.name in members:
            raise FormatError(f"{name}: member {show(member.name)} is there twice; {AGAIN}")
        members[member.name] = member
    if position != start:
        raise FormatError(f"{name}: bytes that belong to no member; {AGAIN}")
    return members


def _entries(name: str, data: bytes, count: int) -> list[tuple[tuple, bytes, bytes]]:
    """Return fields, name and extra bytes of every entry of the directory; refuses archives of other things."""
    at, found = 0, []
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise FormatError(f"{name}: the directory holds fewer than {count} members; {AGAIN}")
        entry = _CENTRAL.unpack_from(data, at)
        at += _CENTRAL.size
        raw, extra = data[at : at + entry[10]], data[at + entry[10] : at + entry[10] + entry[11]]
        at += entry[10] + entry[11] + entry[12]
        found.append((entry, raw, extra))
    if at != len(data):
        raise FormatError(f"{name}: bytes that belong to no member; {AGAIN}")
    whole = found and all(entry[0] == b"PK\x01\x02" for entry, _, _ in found)
    if whole and not any((b"/" + raw).endswith(b"/data.pkl") for _, raw, _ in found):
        some = ", ".join(show(raw.decode("utf-8", "backslashreplace"), 40) for _, raw, _ in found[:2])
        more = ", …" if len(found) > 2 else ""
        raise FormatError(
            f"{name}: is a zip archive of other files ({some}{more}), not a .pth; unpack it and give the file in it"
        )
    return found


def _directory(source: Source) -> tuple[int, int, int, int]:
    """Return the number of members, where the directory starts, its size, and where it must end."""
    tail_size = min(source.size, 4096)
    tail = source.bytes_at(source.size - tail_size, tail_size)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        raise TruncatedError(f"{source.name}: has {source.size:,} bytes and lacks the end of the archive; {AGAIN}")
    end = source.size - len(tail) + found
    record = _END.unpack_from(tail, found)
    if end + _END.size != source.size:
        extra = source.size - end - _END.size
        raise FormatError(f"{source.name}: {extra:,} bytes follow the end of the archive; {AGAIN}")
    _, disk, start_disk, here, count, size, start, comment = record
    if disk or start_disk or comment:
        raise FormatError(f"{source.name}: an archive in several parts or with a comment; {AGAIN}")
    locator = end - _LOCATOR.size
    if locator >= 0 and source.bytes_at(locator, 4) == b"PK\x06\x07":
        _, _, end64, _ = _LOCATOR.unpack(source.bytes_at(locator, _LOCATOR.size))
        if end64 + _END64.size != locator:
            raise FormatError(f"{source.name}: the zip64 end record is not where it should be; {AGAIN}")
        record64 = _END64.unpack(source.bytes_at(end64, _END64.size))
        if record64[0] != b"PK\x06\x06" or record64[1] != _END64.size - 12 or any(record64[4:6]):
            raise FormatError(f"{source.name}: the zip64 end record is damaged; {AGAIN}")
        short = ((here, 0xFFFF), (count, 0xFFFF), (size, _FULL), (start, _FULL))
        for (value, full), value64 in zip(short, record64[6:], strict=True):
            if value not in (value64, full):
                raise FormatError(f"{source.name}: the two end records disagree; {AGAIN}")
        (here, count, size, start), end = record64[6:], end64
    if here != count:
        raise FormatError(f"{source.name}: the end record counts {here} and {count} members; {AGAIN}")
    return count, start, size, end


def _member(source: Source, entry: tuple, raw: bytes, extra: bytes, position: int) -> tuple[Member, int]:
    """Return a member and the position behind it; its local header must lie exactly at `position`."""
    _, _, _, flags, method, _, _, crc, packed, size, _, _, comment, disk, _, attributes, offset = entry
    shown = show(raw.decode("utf-8", "backslashreplace"))
    where = f"{source.name}: member {shown}"
    # torch reads nothing where a member is marked as a folder, and gives what was in memory before
    if entry[0] != b"PK\x01\x02" or disk or comment or not raw or attributes & 0x10:
        raise FormatError(f"{where}: a damaged entry in the directory; {AGAIN}")
    if method or flags & 0x41:
        how = "encrypted" if flags & 0x41 else "compressed"
        raise LimitError(f"{where}: is {how}, and torch.save never does that; save it again with torch.save")
    size, packed, offset = _zip64(extra, (size, packed, offset), where)
    if packed != size:
        raise FormatError(f"{where}: two sizes, {packed:,} and {size:,}; {AGAIN}")
    if offset != position:
        raise FormatError(f"{where}: starts at byte {offset:,}, need {position:,} (no gap, no overlap); {AGAIN}")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: a name that is not UTF-8; {AGAIN}") from error
    local = _LOCAL.unpack(source.bytes_at(offset, _LOCAL.size))
    start = offset + _LOCAL.size + local[9] + local[10]
    late = flags & 8
    same = local[0] == b"PK\x03\x04" and local[2] == flags and local[3] == method
    same = same and source.bytes_at(offset + _LOCAL.size, local[9]) == raw
    # sizes and CRC stand here or, where bit 3 is set, in the record behind the data
    same = same and ((late and not local[6]) or local[6] == crc)
    same = same and all(value in (size, _FULL) or (late and not value) for value in local[7:9])
    if not same:
        raise FormatError(f"{where}: its header and the directory disagree; {AGAIN}")
    if start + size > source.size:
        raise TruncatedError(f"{where}: ends at byte {start + size:,}, the file has {source.size:,}; {AGAIN}")
    return Member(name, start, size, crc), _descriptor(source, start + size, size, crc, where) if late else start + size


def _zip64(extra: bytes, values: tuple[int, int, int], where: str) -> list[int]:
    """Return size, packed size and offset, those that are full replaced by what the zip64 field says."""
    wide = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    full = [index for index, value in enumerate(values) if value == _FULL]
    if len(wide) < 8 * len(full):
        raise FormatError(f"{where}: lacks its 64-bit sizes; {AGAIN}")
    found = list(values)
    for place, index in enumerate(full):
        found[index] = struct.unpack_from("<Q", wide, 8 * place)[0]
    return found


def _descriptor(source: Source, at: int, size: int, crc: int, where: str) -> int:
    """Return the position behind the data descriptor, which repeats CRC and sizes."""
    for layout in ("<4sIII", "<4sIQQ"):
        length = struct.calcsize(layout)
        if size <= _FULL or length == 24:
            record = struct.unpack(layout, source.bytes_at(at, length))
            if record == (b"PK\x07\x08", crc, size, size):
                return at + length
    raise FormatError(f"{where}: the record behind its data does not repeat its size and CRC-32; {AGAIN}")
