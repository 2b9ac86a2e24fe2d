"""Seeded mutations of valid files: bytes flipped, cut and spliced, and fields, opcodes and JSON values replaced."""

import copy
import json
import pickletools
import struct
from collections import OrderedDict

import builders as b
import torch

NUMBERS = (0, 1, 2, 3, 7, 8, 24, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**62, 2**63 - 1, 2**63)
VALUES = (
    *NUMBERS,
    -1,
    -6,
    2**64,
    10**30,
    0.0,
    24.0,
    1e300,
    None,
    True,
    False,
    "",
    "w",
    "F32",
    "F16",
    "BF16",
    "F64",
    "I64",
)
VALUES += ([], {}, [0], [2, 3], [3, 2], [6], [0, 24], [24, 0], [[]], {"a": 1}, "\x1b[2J\u202e", "x" * 500, "\ud800")
PLAIN = [value for value in VALUES if not isinstance(value, float)]
FIELDS = ("crc", "packed", "size", "offset", "flags", "method", "disk", "need")
FIELDS += tuple("local_" + name for name in ("crc", "packed", "size", "flags", "method", "need"))
OPCODES = bytes(range(0x28, 0x7E)) + bytes(range(0x80, 0x99))


def flip(rng, raw):
    """Change bytes: a bit, a byte, a number, or cut, drop, double or move a stretch."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, length = rng.randrange(len(raw) + 1), rng.choice((1, 2, 4, 8, 30))
        match rng.randrange(8):
            case 0 | 1 if at < len(raw):
                raw[at] ^= 1 << rng.randrange(8)
            case 2 if at < len(raw):
                raw[at] = rng.randrange(256)
            case 3:
                raw[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
            case 4:
                del raw[at : at + length]
            case 5:
                raw[at:at] = raw[at : at + length] if rng.random() < 0.5 else rng.randbytes(length)
            case 6:
                raw = raw[: max(1, at)] if rng.random() < 0.4 else raw
            case _:
                to = rng.randrange(len(raw) + 1)
                raw[to : to + length] = raw[at : at + length]
    return bytes(raw) or b"\0"


def opcodes(rng, raw):
    """Change a pickle by its opcodes: one dropped, doubled, swapped, replaced, or its argument changed."""
    starts = [place for _, _, place in pickletools.genops(raw)]
    parts = [raw[start:end] for start, end in zip(starts, [*starts[1:], len(raw)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(7):
            case 0:
                parts[at] = b""
            case 1:
                parts[at] *= 2
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts[at] = parts[other]
            case 4:
                parts[at] = bytes([rng.choice(OPCODES)]) + parts[at][1:]
            case 5:
                parts[at] = b.plain(rng.choice(PLAIN))
            case _:
                parts[at] = parts[at][:1] + flip(rng, parts[at][1:] or b"\0")
    return b"".join(parts)


def fields(rng, members):
    """A .pth of which fields of a header, the directory or the end record are replaced."""
    change, end = {}, {}
    for _ in range(rng.choice((1, 1, 2))):
        value = rng.choice(NUMBERS)
        if rng.random() < 0.2:
            key = rng.choice(("disk", "start_disk", "here", "count", "size", "start"))
            end[key] = value & (0xFFFFFFFF if key in ("size", "start") else 0xFFFF)
        else:
            key = rng.choice(FIELDS)
            wide = key.removeprefix("local_") in ("crc", "packed", "size", "offset")
            change.setdefault(rng.randrange(len(members)), {})[key] = value & (0xFFFFFFFF if wide else 0xFFFF)
    return b.pack(members, change=change, end=end)


def values(rng, found):
    """A JSON object of which values, names or fields are replaced, dropped or added, at any depth."""
    found = copy.deepcopy(found)
    for _ in range(rng.choice((1, 1, 2))):
        place = found
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            match rng.randrange(6):
                case 0 | 1 | 2:
                    place[key] = copy.deepcopy(rng.choice(VALUES))
                case 3:
                    del place[key]
                case 4 if isinstance(place, dict):
                    place[str(rng.choice(VALUES))] = place.pop(key)
                case 5 if isinstance(place, list):
                    place.append(copy.deepcopy(rng.choice(VALUES)))
                case _ if isinstance(place[key], int):
                    place[key] += rng.choice((-1, 1, 4))
            break
    return found


def as_json(rng, found):
    """The text of a JSON object, sometimes itself flipped."""
    raw = json.dumps(found, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return flip(rng, raw) if rng.random() < 0.3 else raw


def split(raw):
    """Header (as an object) and data of a safetensors file."""
    (length,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def pth_seeds():
    """Valid .pth files as torch.save writes them, and members of archives whose fields and opcodes are known."""
    halves = torch.arange(24.0).view(2, 12)
    made = [
        b.heads(),
        {"w": halves[1], "v": halves[0].view(3, 4).t(), "b": torch.ones(5, dtype=torch.bfloat16)},
        OrderedDict(w=torch.nn.Parameter(torch.ones(3)), d=torch.ones(2, dtype=torch.float64), e=torch.empty(0, 3)),
        [
            torch.arange(16.0),
            torch.ones(2, 8, 8),
            torch.zeros(16),
            torch.ones(16),
            torch.ones(2, 8, 8),
            torch.zeros(16),
        ],
        torch.nn.LayerNorm(3).half().state_dict(),
    ]
    return [b.saved(value) for value in made]


PICKLES = [
    b.HONEST,
    b.pickled(*((f"blocks.{i}.att.time_state", b.tensor(shape=(1, 2, 3), stride=(6, 3, 1))) for i in range(1))),
    b"\x80\x02](" + b.tensor(shape=(6,), stride=(1,)) + b.tensor(offset=2, shape=(2, 2), stride=(2, 1)) + b"e.",
    b.pickled(("a", b.tensor(offset=1, shape=(5,), stride=(1,))), ("b", b.tensor(shape=(1,), stride=(9,)))),
]


def pth(rng, seeds):
    """A mutated .pth, at the level of its bytes, its archive or its pickle."""
    kind = rng.randrange(3)
    if kind == 0:
        return flip(rng, rng.choice(seeds))
    pickle = rng.choice(PICKLES)
    members = [("archive/data.pkl", pickle), ("archive/byteorder", b"little"), ("archive/data/0", b.FLOATS)]
    members.append(("archive/version", b"3\n"))
    if kind == 1:
        return fields(rng, members)
    members[0] = ("archive/data.pkl", opcodes(rng, pickle))
    return b.pack(members)


def safetensors(rng, seeds):
    """A mutated safetensors file, at the level of its bytes or its header."""
    raw = rng.choice(seeds)
    if rng.random() < 0.3:
        return flip(rng, raw)
    header, data = split(raw)
    return b.safe(as_json(rng, values(rng, header)), data)


def json_text(rng, seeds):
    """A mutated JSON text."""
    return as_json(rng, values(rng, rng.choice(seeds)))
