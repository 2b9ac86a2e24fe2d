"""Rows 9, 22 to 28 and 29: safetensors headers that lie, and files that are something else altogether."""

import functools
import json
import struct
from dataclasses import replace

import builders as b
import torch
from builders import FLOATS, STATE, one, safe
from corpus import Case

from rwkvlab.errors import FormatError, LimitError, MismatchError, SchemaError, TruncatedError
from rwkvlab.states.files import save_state
from rwkvlab.states.state import State

W = '{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
MIB = 1 << 20


def written(header):
    """A file of a header given as text, and FLOATS."""
    return safe(header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass"))


def ours(folder, name="own.safetensors", flip=None, **metadata):
    """A state file of our own, with metadata replaced (None: taken out) and a byte of a tensor flipped."""
    state = State(torch.stack(list(b.heads().values())), att_shift=torch.ones(2, 16), ffn_shift=torch.ones(2, 16))
    path = save_state(state, folder / name)
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    kept = header["__metadata__"] | metadata
    header["__metadata__"] = {key: value for key, value in kept.items() if value is not None}
    data = bytearray(raw[8 + length :])
    if flip is not None:
        data[flip] ^= 1
    path.write_bytes(safe(header, bytes(data)))
    return path


def _own(name, **changes):
    return functools.partial(ours, name=name, **changes)


ROW_9 = [
    Case(9, name, _own(name, **changes), FormatError, "sha256", by="state fit")
    for name, changes in [
        ("first_byte.safetensors", {"flip": 0}),
        ("sign.safetensors", {"flip": 3}),
        ("a_shift.safetensors", {"flip": -1}),
        ("no_sum.safetensors", {"sha256": None}),
        ("empty_sum.safetensors", {"sha256": ""}),
        ("other_sum.safetensors", {"sha256": "0" * 64}),
        ("capital_sum.safetensors", {"sha256": "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"}),
    ]
]
ROW_22 = [
    Case(22, f"{name}.safetensors", data, error, words)
    for name, data, error, words in [
        ("length_0", bytes(8) + b"{}" + FLOATS, FormatError, "header length: got 0"),
        ("length_1", struct.pack("<Q", 1) + b"{}" + FLOATS, FormatError, "header length: got 1"),
        ("length_2_31", safe(one(), length=2**31), FormatError, "got 2,147,483,648"),
        ("length_2_63", safe(one(), length=2**63), FormatError, "header length: got 9,223"),
        ("length_max", b"\xff" * 8 + b"{}" + FLOATS, FormatError, "header length"),
        ("length_100_mb", safe(one(), length=100_000_000), FormatError, "need 2 to 16,777,216"),
        ("length_17_mib", lambda _: safe(b"{" + b" " * (17 * MIB) + b"}"), FormatError, "need 2 to 16,777,216"),
        ("past_the_end", safe(one(), length=5000), TruncatedError, "need 5,008 for the header"),
        ("one_too_long", safe(one(), b"", length=999), TruncatedError, "for the header"),
        ("into_the_data", safe(one(), length=len(json.dumps(one())) + 3), FormatError, "header"),
        ("cut_in_the_header", safe(one(), length=20), FormatError, "not JSON"),
        ("big_endian", struct.pack(">Q", 60) + json.dumps(one()).encode() + FLOATS, FormatError, "header length"),
    ]
]
ROW_23 = [
    Case(23, f"{name}.safetensors", data, FormatError, words)
    for name, data, words in [
        ("not_json", written('{"w": nope}'), "not JSON at character 6"),
        ("single_quotes", written("{'w': 1}"), "not JSON"),
        ("comment", written('{/* x */"w":' + W + "}"), "not JSON at character 1"),
        ("trailing_comma", written('{"w":' + W + ",}"), "not JSON"),
        ("two_objects", written('{"w":' + W + "}{}"), "not JSON"),
        ("not_utf8", written(b'{"\xff": 1}'), "not UTF-8 at byte 10"),
        ("surrogate_bytes", written(b'{"\xed\xa0\x80": 1}'), "not UTF-8"),
        ("overlong_utf8", written(b'{"\xc0\xaf": 1}'), "not UTF-8"),
        ("control_in_text", written('{"a\x01": 1}'), "not JSON"),
        ("nul_behind", written('{"w":' + W + "}\0\0"), "not JSON"),
        ("bom", safe(b"\xef\xbb\xbf" + json.dumps(one()).encode()), "no tensor file"),
        ("utf_16", safe(json.dumps(one()).encode("utf-16")), "no tensor file"),
        ("utf_16_le", safe(json.dumps(one()).encode("utf-16-le")), "not JSON"),
        ("utf_32", safe(json.dumps(one()).encode("utf-32-le")), "not JSON"),
        ("blank_first", safe(b" " + json.dumps(one()).encode()), "no tensor file"),
        ("a_list", safe(b"[]"), "no tensor file"),
        ("nan", written('{"w": NaN}'), "NaN is not JSON"),
        ("infinity", written('{"w": [1, -Infinity]}'), "-Infinity is not JSON"),
        ("deep_lists", written('{"w":' + "[" * 100_000 + "]" * 100_000 + "}"), "header: nested too deep"),
        ("deep_objects", written('{"w":' * 100_000 + "1" + "}" * 100_000), "header: nested too deep"),
        ("long_number", written('{"w":' + "9" * 10_000 + "}"), "header: nested too deep or a number too long"),
        ("long_text_cut", written('{"w": "' + "x" * 100_000), "not JSON"),
        ("bad_escape", written('{"\\u12": 1}'), "not JSON"),
    ]
]
ROW_24 = [
    Case(24, f"{name}.safetensors", data, FormatError, words)
    for name, data, words in [
        ("name", written(f'{{"w":{W},"w":{W}}}'), "'w' is there twice"),
        ("escaped_name", written(f'{{"w":{W},"\\u0077":{W}}}'), "'w' is there twice"),
        ("field", written('{"w":' + W[:-1] + ',"dtype":"F32"}}'), "'dtype' is there twice"),
        ("escaped_field", written('{"w":' + W[:-1] + ',"sh\\u0061pe":[6]}}'), "'shape' is there twice"),
        ("metadata", written(f'{{"__metadata__":{{}},"w":{W},"__metadata__":{{}}}}'), "'__metadata__' is there twice"),
        ("key_of_metadata", written(f'{{"__metadata__":{{"a":"1","a":"2"}},"w":{W}}}'), "'a' is there twice"),
        ("long_name", written('{"' + "x\\u001b" * 99 + f'":{W},"' + "x\\u001b" * 99 + f'":{W}}}'), "\\x1b"),
    ]
]
TWO = one(data_offsets=[0, 24])["w"]
LISTS = [10**18] * 8
ROW_25 = [
    Case(25, f"{name}.safetensors", safe(header, data), FormatError, words)
    for name, header, data, words in [
        ("overlap", one() | {"v": TWO}, FLOATS, "'v': data_offsets: overlaps"),
        ("overlap_by_one", one() | {"v": one(shape=[1], data_offsets=[23, 27])["w"]}, FLOATS + b"123", "overlaps"),
        ("inside", one() | {"v": one(shape=[1], data_offsets=[4, 8])["w"]}, FLOATS, "overlaps"),
        ("hole", one(data_offsets=[4, 28]), FLOATS + b"1234", "leaves a gap"),
        ("hole_between", one() | {"v": one(shape=[1], data_offsets=[28, 32])["w"]}, FLOATS + bytes(8), "gap"),
        ("empty_far_away", one() | {"v": one(shape=[0], data_offsets=[2**60, 2**60])["w"]}, FLOATS, "gap"),
        ("reversed", one(data_offsets=[24, 0]), FLOATS, "got [24, 0]"),
        ("negative", one(data_offsets=[-24, 0]), FLOATS, "data_offsets: need whole numbers >= 0, got -24"),
        ("float", one(data_offsets=[0.0, 24.0]), FLOATS, "data_offsets: need whole numbers >= 0, got float"),
        ("infinite", one(data_offsets=[0, 1e999]), FLOATS, "header: Infinity is not JSON"),
        ("string", one(data_offsets=["0", "24"]), FLOATS, "got str"),
        ("true", one(data_offsets=[False, 24]), FLOATS, "got bool"),
        ("null", one(data_offsets=None), FLOATS, "data_offsets: need a list"),
        ("object", one(data_offsets={"0": 24}), FLOATS, "data_offsets: need a list"),
        ("one", one(data_offsets=[24]), FLOATS, "got [24]"),
        ("three", one(data_offsets=[0, 12, 24]), FLOATS, "got [0, 12, 24]"),
        ("none", one(data_offsets=[]), FLOATS, "got []"),
        ("eight_long", {"n" * 90: one(data_offsets=LISTS, shape=[1] * 8)["w"]}, FLOATS, "data_offsets: got [1000"),
        ("two_64", one(data_offsets=[2**64, 2**64 + 24]), FLOATS, "data_offsets: need whole numbers"),
        ("trailing", one(), FLOATS + b"1", "1 bytes follow the last tensor"),
        ("extra_field", one(extra=1), FLOATS, "nothing else"),
        ("no_offsets", {"w": {"dtype": "F32", "shape": [6]}}, FLOATS, "need dtype, shape and data_offsets"),
        ("no_object", {"w": [1, 2]}, FLOATS, "'w': need dtype"),
    ]
]
ROW_25[9] = Case(25, "infinite.safetensors", written('{"w":' + W.replace("24]", "1e999]") + "}"), FormatError, "float")
ROW_26 = [
    Case(26, f"{name}.safetensors", safe(one(**changes)), FormatError, words)
    for name, changes, words in [
        ("too_many", {"shape": [2, 4]}, "need 32 bytes for [2, 4]"),
        ("too_few", {"shape": [5]}, "need 20 bytes"),
        ("other_width", {"dtype": "F16"}, "need 12 bytes"),
        ("scalar", {"shape": []}, "need 4 bytes for []"),
        ("dims_2_62", {"shape": [2**62]}, "shape"),
        ("dims_2_63", {"shape": [2**63, 1]}, "shape"),
        ("dims_2_64", {"shape": [2**64 + 6]}, "shape"),
        ("wraps", {"shape": [2**33, 2**31]}, "is beyond any file"),
        ("wraps_with_a_zero", {"shape": [0, 2**61, 2**61], "data_offsets": [0, 0]}, "is beyond any file"),
        ("negative", {"shape": [-2, -3]}, "shape: need whole numbers >= 0, got -2"),
        ("dims_2000", {"shape": [1] * 2000}, "at most 8"),
        ("nine", {"shape": [1] * 9}, "at most 8"),
        ("floats", {"shape": [2.0, 3.0]}, "got float"),
        ("true", {"shape": [True, 6]}, "got bool"),
        ("text", {"shape": "23"}, "shape: need a list"),
        ("null", {"shape": None}, "shape: need a list"),
        ("nested", {"shape": [[2], 3]}, "got list"),
        ("huge_number", {"shape": [10**4000]}, "shape"),
    ]
]
DTYPES = (
    "I64",
    "I32",
    "I16",
    "I8",
    "U8",
    "U16",
    "U32",
    "U64",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "C64",
    "F4",
    "f32",
    "",
    "Q8",
)
ROW_27 = [
    Case(27, f"dtype_{name}.safetensors", safe(one(dtype=name)), SchemaError, "need one of F64 F32 F16 BF16")
    for name in DTYPES
]
ROW_27 += [
    Case(27, f"dtype_{name}.safetensors", safe(one(dtype=value)), SchemaError, "'w': dtype: got")
    for name, value in (("null", None), ("number", 32), ("list", ["F32"]), ("escape", "\x1b[2J" + "x" * 999))
]
ROW_27 += [
    Case(27, f"{str(kind)[6:]}.pth", b.saved({STATE: torch.ones(2, 8, 8).to(kind)}), SchemaError, "float32, float16")
    for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64)
]
ROW_27 += [
    Case(27, f"{str(kind)[6:]}.pth", b.saved({STATE: torch.ones(2, 8, 8).to(kind)}), SchemaError, "data.pkl")
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16)
]


def empties(count):
    return {f"w{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}


ROW_28 = [
    Case(28, f"{name}.{suffix}", data, error, words)
    for name, suffix, data, error, words in [
        ("none", "safetensors", safe({}, b""), SchemaError, "holds no tensors"),
        ("only_metadata", "safetensors", safe({"__metadata__": {"a": "b"}}, b""), SchemaError, "holds no tensors"),
        ("none_and_bytes", "safetensors", safe({}), SchemaError, "holds no tensors"),
        ("none", "pth", b.saved({}), SchemaError, "holds no tensors"),
        ("an_empty_list", "pth", b.saved([]), SchemaError, "holds no tensors"),
        ("empty_8000", "safetensors", safe(empties(8000), b""), LimitError, "8,000 of them empty"),
        ("empty_65", "safetensors", safe(empties(65) | one()), LimitError, "65 of them empty"),
        ("tensors_20001", "safetensors", lambda _: safe(empties(20_001), b""), LimitError, "20,001 tensors"),
        ("tensors_100001", "safetensors", lambda _: safe(empties(100_001), b""), LimitError, "brackets"),
        ("empty_70", "pth", b.saved({str(i): torch.ones(0) for i in range(70)}), LimitError, "70 of them empty"),
        ("small_lists", "safetensors",
         lambda _: written('{"a":[' + "[]," * (5 * MIB) + "[]]}"), LimitError, "brackets"),
        ("small_objects", "safetensors",
         lambda _: written('{"a":[' + '{"":0},' * (2 * MIB) + "[]]}"), LimitError, "brackets"),
        ("small_numbers", "safetensors",
         lambda _: written('{"a":[' + "1e5," * (4 * MIB - 9) + "1]}"), LimitError, "brackets"),
        ("many_names", "safetensors",
         lambda _: written("{" + ",".join(f'"{i:x}":0' for i in range(240_000)) + "}"), LimitError, "240,000 tensors"),
        ("much_metadata", "safetensors",
         lambda _: written('{"__metadata__":{' + ",".join(f'"{i:x}":""' for i in range(1_200_000)) + "}}"),
         LimitError, "names"),
    ]
]  # fmt: skip
ROW_28 = [replace(case, by="read") if case.error is LimitError else case for case in ROW_28]
SINGLE = {f"w{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(20_000)}
ROW_28 += [  # as many as are read, in the time and the memory of all
    Case(
        28,
        "tensors_20000.safetensors",
        lambda _: safe(SINGLE, bytes(80_000)),
        SchemaError,
        "give a",
        by="peek state model",
    ),
]
ROW_28 += [
    Case(24, f"metadata_{name}.safetensors", safe(one() | {"__metadata__": value}), FormatError, "__metadata__: need")
    for name, value in (("number", {"a": 1}), ("null", None), ("list", []), ("nested", {"a": {}}), ("text", "x"))
]

HTML = b"<!DOCTYPE html><html><body>404: not found</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
LORA = {f"blocks.0.att.{name}.lora_{side}": torch.ones(2, 2) for name in ("key", "value") for side in "AB"}
ROW_29 = [
    Case(29, name, data, FormatError, words, by="read model")
    for name, data, words in [
        ("page.pth", HTML, "is an HTML page"),
        ("page_of_blanks.safetensors", b"\n\n  " + HTML.lower(), "is an HTML page"),
        ("page_bom.st", b"\xef\xbb\xbf" + HTML, "'resolve', not 'blob'"),
        ("error.xml", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML"),
        ("pointer.pth", LFS, "git lfs pull"),
        ("pointer.safetensors", LFS, "git-lfs pointer"),
        ("model.gguf", b"GGUF\x03\0\0\0" + bytes(50), "a GGUF file"),
        ("renamed_gguf.pth", b"GGUF\x03\0\0\0" + bytes(50), "a GGUF file"),
        ("model.prefab", b"\xa2\x64info\xa1\x67version\x62V7" + bytes(20), "a CBOR file"),
        ("tagged.prefab", b"\xd9\xd9\xf7\xa1\x64data" + bytes(20), "a CBOR file"),
        ("config.json", b'{"a": 1, "b": [1, 2, 3]}', "a JSON text"),
        ("error.pth", b'{"error": "Repository not found"}', "a JSON text"),
        ("zeros.pth", bytes(5000), "filled with zeros"),
        ("ones.pth", b"\xff" * 5000, "ff ff ff ff"),
        ("notes.txt", b"These are the weights that you asked for.", "no tensor file"),
        ("run.sh", b"#!/bin/sh\ntouch canary\n", "no tensor file"),
        ("a.exe", b"MZ\x90\0" + bytes(200), "no tensor file"),
        ("a.pdf", b"%PDF-1.7\n" + bytes(200), "no tensor file"),
        ("\x1b]0;x\x07\u202e<b>.pth", b"\x1b[2J" * 20, "no tensor file"),
    ]
]
ROW_29 += [
    Case(29, "error.state", b'{"error": "Repository not found"}', SchemaError, "is a JSON text", by="state peek"),
    Case(29, "lora.pth", b.saved(LORA), MismatchError, "is a LoRA adapter", by="state peek model"),
    Case(29, "list.json", b"[[1, 2], [3]]", SchemaError, "is a JSON text", by="state peek"),
]  # fmt: skip
CASES = [*ROW_9, *ROW_22, *ROW_23, *ROW_24, *ROW_25, *ROW_26, *ROW_27, *ROW_28, *ROW_29]
