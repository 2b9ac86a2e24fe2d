"""Bytes of .pth and safetensors files, field by field: what torch.save writes, with anything in it changed."""

import io
import json
import struct
import zlib

import torch

FLOATS = struct.pack("<6f", *range(6))
STATE = "blocks.0.att.time_state"
EMPTY = b"ccollections\nOrderedDict\n)R"


def text(value):
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value):
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def plain(value):
    """The opcodes of None, booleans, numbers, texts, lists, tuples and dicts, of a protocol that torch.save uses."""
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return whole(value)
        case str():
            return text(value)
        case bytes():  # opcodes already
            return value
        case list():
            return b"](" + b"".join(map(plain, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(plain, value)) + b"t"
        case dict():
            return b"}(" + b"".join(plain(key) + plain(item) for key, item in value.items()) + b"u"
    raise TypeError(value)


def name_of(full):
    module, _, function = full.rpartition(".")
    return b"c" + module.encode() + b"\n" + function.encode() + b"\n"


def storage(key="0", numel=6, kind="torch.FloatStorage", place="cpu"):
    return plain(("storage", name_of(kind), key, place, numel)) + b"Q"


def tensor(offset=0, shape=(2, 3), stride=(3, 1), grad=False, hooks=EMPTY, rest=(), **stored):
    """The opcodes of one tensor, as torch.save writes them."""
    made = stored.get("storage") or storage(**stored)
    return name_of("torch._utils._rebuild_tensor_v2") + plain((made, offset, shape, stride, grad, hooks, *rest)) + b"R"


def pickled(*pairs, start=b"\x80\x02", end=b"."):
    """The pickle of a dict."""
    return start + b"}(" + b"".join(plain(key) + plain(value) for key, value in pairs) + b"u" + end


HONEST = pickled(("w", tensor()))


def archive(pickle=HONEST, data=FLOATS, more=(), root="archive/", **changes):
    """A .pth of data.pkl, one record data/0 and more members; `changes` are those of `pack`."""
    return pack([(root + "data.pkl", pickle), (root + "data/0", data), *more], **changes)


_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")


def pack(members, change=None, end=None, prefix=b"", gap=b"", suffix=b"", comment=b""):
    """A zip archive of stored members (name, bytes).

    change maps a member's index to fields: those of the directory by name (crc, packed, size, offset, flags, method,
    disk, need, extra, note, name, data, sig), with "local_" in front those of its local header; `behind` are bytes that
    follow its data. end changes the end record (disk, start_disk, here, count, size, start, sig).
    """
    out, directory = bytearray(prefix), bytearray()
    for index, (name, data) in enumerate(members):
        data = data.encode() if isinstance(data, str) else data
        raw = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
        fields = {"sig": b"PK\x01\x02", "need": 20, "flags": 0, "method": 0, "crc": zlib.crc32(data)}
        fields |= {
            "packed": len(data),
            "size": len(data),
            "name": raw,
            "extra": b"",
            "note": b"",
            "disk": 0,
            "attributes": 0,
        }
        fields |= {"offset": len(out)} | (change or {}).get(index, {})
        local = fields | {"sig": b"PK\x03\x04", "extra": b""}
        local |= {key[6:]: value for key, value in fields.items() if key.startswith("local_")}
        out += _LOCAL.pack(
            *(local[key] for key in ("sig", "need", "flags", "method")), 0, 0,
            *(local[key] for key in ("crc", "packed", "size")), len(local["name"]), len(local["extra"]),
        )  # fmt: skip
        out += local["name"] + local["extra"] + fields.get("data", data) + fields.get("behind", b"")
        directory += _CENTRAL.pack(
            fields["sig"], 20, *(fields[key] for key in ("need", "flags", "method")), 0, 0,
            *(fields[key] for key in ("crc", "packed", "size")),
            *(len(fields[key]) for key in ("name", "extra", "note")),
            *(fields["disk"], 0, fields["attributes"], fields["offset"]),
        )  # fmt: skip
        directory += fields["name"] + fields["extra"] + fields["note"]
    last = {"sig": b"PK\x05\x06", "disk": 0, "start_disk": 0, "here": len(members), "count": len(members)}
    last |= {"size": len(directory), "start": len(out) + len(gap)} | (end or {})
    tail = _END.pack(*(last[k] for k in ("sig", "disk", "start_disk", "here", "count", "size", "start")), len(comment))
    return bytes(out + gap + directory + tail + comment + suffix)


def saved(value, **options):
    """What torch.save makes of a value."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def safe(header, data=FLOATS, length=None):
    """A safetensors file of a header (bytes, or an object for JSON) and the bytes behind it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def one(**changes):
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


def safe_of(tensors, metadata=None):
    """A safetensors file of torch tensors, written by hand so that any metadata and any names can be in it."""
    header, data = {}, b""
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
    for key, value in tensors.items():
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        place = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": place}
        data += raw
    return safe(header if metadata is None else {"__metadata__": metadata} | header, data)


def heads(layers=2, **changes):
    """The tensors of a tuned state that fits the models here, by name; changes replace layers: `_0=tensor`."""
    made = {f"blocks.{i}.att.time_state": torch.full((2, 8, 8), i + 0.5) for i in range(layers)}
    for layer in made.values():
        layer[0, 1] = 2.0  # no head is its own transpose
    return made | {f"blocks.{key[1:]}.att.time_state": value for key, value in changes.items()}
