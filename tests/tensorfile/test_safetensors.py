"""A safetensors file whose header lies is refused before anything is allocated."""

import json
import os
import struct

import pytest

from rwkvlab.errors import FormatError, LimitError, LoadError, SchemaError, TruncatedError
from rwkvlab.tensorfile import read_tensors

FLOATS = struct.pack("<6f", *range(6))


def safe(header, data=FLOATS):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def one(**changes):
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


TWICE = (
    b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
)

# name: (bytes, error, words that the message must have)
HOSTILE = {
    "short.safetensors": (b"\x08\0\0\0\0\0\0\0{", TruncatedError, "9 bytes"),
    "length_0.safetensors": (bytes(8) + b"{}" + FLOATS, FormatError, "header length"),
    "length_2_63.safetensors": (struct.pack("<Q", 2**63) + b"{}" + FLOATS, FormatError, "header length"),
    "length_max.safetensors": (b"\xff" * 8 + b"{}" + FLOATS, FormatError, "header length"),
    "length_past_end.safetensors": (struct.pack("<Q", 5000) + b'{"w":', TruncatedError, "need 5,008"),
    "not_json.safetensors": (safe(b'{"w": nope}'), FormatError, "not JSON"),
    "not_utf8.safetensors": (safe(b'{"\xff": 1}'), FormatError, "UTF-8 at byte 10"),
    "nan.safetensors": (safe(b'{"w": NaN}'), FormatError, "NaN"),
    "deep.safetensors": (safe(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), FormatError, "header"),
    "long_number.safetensors": (safe(b'{"w":' + b"9" * 10_000 + b"}"), FormatError, "header"),
    "twice.safetensors": (safe(TWICE), FormatError, "'w' is there twice"),
    "escaped_twice.safetensors": (safe(TWICE.replace(b'"w"', b'"\\u0077"', 1)), FormatError, "'w' is there twice"),
    "hole.safetensors": (safe(one(data_offsets=[4, 28]), FLOATS + b"1234"), FormatError, "gap"),
    "overlap.safetensors": (safe(one() | {"v": one(data_offsets=[0, 24])["w"]}), FormatError, "overlaps"),
    "reversed.safetensors": (safe(one(data_offsets=[24, 0])), FormatError, "data_offsets"),
    "three_offsets.safetensors": (safe(one(data_offsets=[0, 12, 24])), FormatError, "data_offsets"),
    "float_offsets.safetensors": (safe(one(data_offsets=[0.0, 24.0])), FormatError, "data_offsets"),
    "true_shape.safetensors": (safe(one(shape=[True, 6])), FormatError, "shape"),
    "trailing.safetensors": (safe(one(), FLOATS + b"1"), FormatError, "1 bytes follow"),
    "half.safetensors": (safe(one(), FLOATS[:20]), TruncatedError, "need"),
    "wrong_size.safetensors": (safe(one(shape=[2, 4])), FormatError, "need 32 bytes"),
    "dims_2_63.safetensors": (safe(one(shape=[2**63, 1])), FormatError, "shape"),
    "negative.safetensors": (safe(one(shape=[-2, -3])), FormatError, "shape"),
    "dims_2000.safetensors": (safe(one(shape=[1] * 2000)), FormatError, "at most 8"),
    "int8.safetensors": (safe(one(dtype="I8", shape=[24])), SchemaError, "F32"),
    "float8.safetensors": (safe(one(dtype="F8_E4M3", shape=[24])), SchemaError, "'F8_E4M3'"),
    "extra_field.safetensors": (safe(one(extra=1)), FormatError, "nothing else"),
    "no_tensors.safetensors": (safe({}, b""), SchemaError, "no tensors"),
    "empty_ones.safetensors": (
        safe({f"w{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(8000)}, b""),
        LimitError,
        "8,000",
    ),
    "number_metadata.safetensors": (safe(one() | {"__metadata__": {"a": 1}}), FormatError, "__metadata__"),
    "\x1b[2J\u202e.safetensors": (safe({"\x1b]0;x\x07<b>": one(dtype="\x1b[2J")["w"]}), SchemaError, "\\x1b"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_kind_name_and_remedy(refused, name):
    refused(name, *HOSTILE[name])


def test_the_honest_file_that_these_are_made_from_is_read(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safe(one()))
    with read_tensors(tmp_path / "a.safetensors") as file:
        assert file.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_every_cut_is_refused(tmp_path):
    path, raw = tmp_path / "cut", safe(one())
    for end in range(len(raw)):
        path.write_bytes(raw[:end])
        with pytest.raises(LoadError, match="cut"):
            read_tensors(path)


def test_a_sparse_file_is_refused_before_it_is_believed(tmp_path):
    path = tmp_path / "sparse.safetensors"
    size = 1 << 33
    path.write_bytes(safe(one(shape=[size // 4], data_offsets=[0, size]), b""))
    os.truncate(path, path.stat().st_size + size)
    with pytest.raises(LimitError, match="on disk"):
        read_tensors(path)


def test_a_file_cut_short_while_it_is_open_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safe(one()))
    with read_tensors(path) as file:
        os.truncate(path, 80)
        with pytest.raises(TruncatedError, match=r"a\.safetensors"):
            file.read("w")


def test_tensors_that_lie_beyond_four_gigabytes_are_taken():
    from rwkvlab.tensorfile.safetensors import _entry

    begin, size = 13 * 2**30, 2**29
    value = {"dtype": "BF16", "shape": [65536, 4096], "data_offsets": [begin, begin + size]}
    assert _entry("file: 'emb.weight'", value, 8).record == begin + 8
