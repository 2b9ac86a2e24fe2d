"""Files that are damaged, or made to harm, get one typed error that names the file, the field and what to do."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch

from rwkvlab.errors import FormatError, LimitError, LoadError, PathError, SchemaError, TruncatedError, UnsafeFileError
from rwkvlab.tensorfile import read_tensors

FLOATS = struct.pack("<6f", *range(6))


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value):
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor(key="0", numel=6, offset=0, shape=(2, 3), stride=(3, 1), storage="torch\nFloatStorage", hooks=b"", rest=b""):
    """The opcodes of one tensor, as torch.save writes them."""
    made = b"(" + text("storage") + b"c" + storage.encode() + b"\n" + text(key) + text("cpu") + whole(numel) + b"tQ"
    view = whole(offset) + b"(" + b"".join(map(whole, shape)) + b"t(" + b"".join(map(whole, stride)) + b"t"
    empty = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + made + view + b"\x89" + empty + hooks + rest + b"tR"


def entries(*pairs):
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in pairs) + b"u."


def archive(pickled=None, data=FLOATS, more=(), root="archive/", **names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(root + "data.pkl", entries(("w", tensor())) if pickled is None else pickled)
        file.writestr(root + "data/0", data)
        for name, content in (*more, *names.items()):
            file.writestr(name, content)
    return out.getvalue()


def safe(header, data=FLOATS):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def one(**changes):
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


def call(name, args=b")"):
    module, _, function = name.rpartition(".")
    return entries(("w", b"c" + module.encode() + b"\n" + function.encode() + b"\n" + args + b"R"))


def saved(value, **kwargs):
    out = io.BytesIO()
    torch.save(value, out, **kwargs)
    return out.getvalue()


def compressed():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", entries(("w", tensor())))
    return out.getvalue()


def flipped(at):
    raw = bytearray(archive())
    raw[raw.index(FLOATS) + at] ^= 1
    return bytes(raw)


def with_gap():
    raw = archive()
    end = raw.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", raw, end + 16)[0]
    return raw[:start] + b"junk" + raw[start : end + 16] + struct.pack("<I", start + 4) + raw[end + 20 :]


def with_overlap():
    """An archive whose member data/1 lies inside data/0."""
    inner = archive(root="archive/")
    first = inner[: inner.index(b"PK\x03\x04", 4)].replace(b"data.pkl", b"data/111")
    out = archive(data=first + FLOATS)
    end = out.rindex(b"PK\x05\x06")
    count, _, size, start = struct.unpack_from("<HHII", out, end + 8)
    entry = bytearray(out[start : out.index(b"PK\x01\x02", start + 4)].replace(b"data.pkl", b"data/111"))
    struct.pack_into("<I", entry, 42, out.index(first))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count + 1, count + 1, size + len(entry), start, 0)
    return out[:end] + bytes(entry) + tail


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        info = tarfile.TarInfo("storages")
        info.size = 24
        file.addfile(info, io.BytesIO(FLOATS))
    return out.getvalue()


class Canary:
    def __reduce__(self):
        return os.mkdir, ("/tmp/rwkvlab-canary",)


SHARED = entries(*((f"w{i}", tensor(numel=1024, shape=(1024,), stride=(1,))) for i in range(200)))
DEEP = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
LAUGHS = b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % i * 9 + b"eq%c" % (i + 1) for i in range(60)) + b"."
TWICE = (
    b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
)

# name: (bytes, error, words that the message must have)
HOSTILE = {
    "asks_for_os_system.pth": (archive(call("os.system", b"(" + text("true") + b"t")), UnsafeFileError, "'os.system'"),
    "asks_for_eval.pth": (archive(call("builtins.eval", b"(" + text("1") + b"t")), UnsafeFileError, "'builtins.eval'"),
    "calls_bytearray.pth": (archive(call("builtins.bytearray", b"(" + whole(2**33) + b"t")), UnsafeFileError, "byte"),
    "counter.pth": (archive(call("collections.Counter")), UnsafeFileError, "'collections.Counter'"),
    "sparse.pth": (archive(call("torch._utils._rebuild_sparse_tensor")), UnsafeFileError, "sparse_tensor"),
    "sized_storage.pth": (archive(call("torch.FloatStorage", b"(" + whole(2**33) + b"t")), UnsafeFileError, "Storage"),
    "sized_ordered_dict.pth": (archive(call("collections.OrderedDict", b"(]t")), UnsafeFileError, "OrderedDict"),
    "newobj.pth": (archive(b"\x80\x02)\x81."), UnsafeFileError, "NEWOBJ"),
    "attributes.pth": (
        archive(b"\x80\x02ccollections\nOrderedDict\n)R}" + text("x") + b"Nsb."),
        UnsafeFileError,
        "attrib",
    ),
    "canary.pth": (pickle.dumps(Canary(), 2), UnsafeFileError, "bare pickle"),
    "canary.safetensors": (pickle.dumps(Canary(), 2), FormatError, "is a pickle"),
    "text_pickle.pth": (b"cos\nsystem\n(S'true'\ntR.", UnsafeFileError, "bare pickle"),
    "legacy.pth": (saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False), UnsafeFileError, "re-save it"),
    "old.tar.pth": (tar(), FormatError, "tar archive"),
    "script.pth": (archive(more=[("archive/constants.pkl", b"")]), FormatError, "TorchScript"),
    "two_roots.pth": (archive(more=[("other/data.pkl", b"")]), FormatError, "'other/data.pkl'"),
    "stranger.pth": (archive(more=[("archive/run.py", b"")]), FormatError, "'archive/run.py'"),
    "up.pth": (archive(more=[("archive/data/../x", b"")]), FormatError, "torch.save writes"),
    "prefix.pth": (b"#!/bin/sh\n" + archive(), FormatError, "no tensor file"),
    "suffix.pth": (archive() + b"more", FormatError, "4 bytes follow"),
    "gap.pth": (with_gap(), FormatError, "belong to no member"),
    "overlapping.pth": (with_overlap(), FormatError, "no gap, no overlap"),
    "half.pth": (archive()[:200], TruncatedError, "lacks the end"),
    "compressed.pth": (compressed(), LimitError, "compressed"),
    "flipped.pth": (flipped(5), FormatError, "CRC-32 differs in 'data/0'"),
    "long_record.pth": (archive(data=FLOATS + b"1234"), FormatError, "28 bytes"),
    "no_record.pth": (archive(entries(("w", tensor("7")))), FormatError, "missing"),
    "no_pickle.pth": (archive(root="x/").replace(b"data.pkl", b"data.plk"), FormatError, "data.plk"),
    "big_endian.pth": (archive(more=[("archive/byteorder", b"big")]), FormatError, "byteorder"),
    "stride_zero.pth": (archive(entries(("w", tensor(stride=(0, 1))))), FormatError, "stride [0, 1]"),
    "overlap.pth": (archive(entries(("w", tensor(stride=(1, 1))))), FormatError, "overlap"),
    "stride_negative.pth": (archive(entries(("w", tensor(stride=(-3, 1))))), FormatError, "stride"),
    "out_of_range.pth": (archive(entries(("w", tensor(offset=1)))), FormatError, "reaches to 7"),
    "offset_negative.pth": (archive(entries(("w", tensor(offset=-1)))), FormatError, "offset"),
    "shape_2_62.pth": (archive(entries(("w", tensor(shape=(2**62, 3))))), FormatError, "shape"),
    "shape_2_63.pth": (archive(entries(("w", tensor(shape=(2**31, 2**32), stride=(1, 1))))), FormatError, "shape"),
    "storage_2_62.pth": (archive(entries(("w", tensor(numel=2**61)))), FormatError, "24 bytes"),
    "nine_dims.pth": (archive(entries(("w", tensor(shape=(1,) * 9, stride=(1,) * 9)))), FormatError, "at most 8"),
    "hooks.pth": (archive(entries(("w", tensor(hooks=text("k") + b"Ns")))), UnsafeFileError, "hooks"),
    "conjugate.pth": (archive(entries(("w", tensor(rest=b"}" + text("conj") + b"\x88s")))), UnsafeFileError, "flags"),
    "integers.pth": (archive(entries(("w", tensor(storage="torch\nLongStorage")))), SchemaError, "float32"),
    "shared.pth": (archive(SHARED, bytes(4096)), LimitError, "share their bytes"),
    "same_key.pth": (archive(entries(("w", tensor()), ("w", tensor()))), FormatError, "'w' is there twice"),
    "int_key.pth": (archive(b"\x80\x02}" + whole(1) + tensor() + b"s."), SchemaError, "no string but int"),
    "nested.pth": (archive(entries(("state_dict", b"}" + text("w") + tensor() + b"s"))), FormatError, "'state_dict'"),
    "a_list.pth": (archive(b"\x80\x02](" + tensor() + tensor() + b"e."), SchemaError, "list of 2 tensors"),
    "a_number.pth": (archive(b"\x80\x02" + whole(5) + b"."), FormatError, "int"),
    "deep.pth": (archive(DEEP), FormatError, "list"),
    "marks.pth": (archive(b"\x80\x02" + b"(" * 2000), FormatError, "nested"),
    "laughs.pth": (archive(LAUGHS), FormatError, "byte"),
    "itself.pth": (archive(b"\x80\x02}q\x00" + text("w") + b"h\x00s."), FormatError, "'w'"),
    "opcodes.pth": (archive(b"\x80\x02" + b"Nq\x00" * 300_000 + b"."), LimitError, "opcodes"),
    "huge_pickle.pth": (archive(b"\x80\x02" + b"N" * (9 << 20)), LimitError, "data.pkl"),
    "protocol4.pth": (archive(pickle.dumps({}, 4)), FormatError, "protocol 4"),
    "garbage.pth": (archive(b"\x80\x02\xff\xff."), FormatError, "0xff"),
    "empty_stack.pth": (archive(b"\x80\x02."), FormatError, "left over"),
    "html.pth": (b"<!DOCTYPE html><html><body>404</body></html>", FormatError, "HTML page"),
    "tiny_html.pth": (b"<html>", FormatError, "HTML page"),
    "a_byte.pth": (b"\xa1", TruncatedError, "has 1 bytes"),
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", FormatError, "git lfs pull"),
    "model.gguf": (b"GGUF\x03\0\0\0" + bytes(50), FormatError, "GGUF"),
    "model.pth.gz": (b"\x1f\x8b\x08\0" + bytes(50), FormatError, "gunzip"),
    "model.prefab": (b"\xa2\x64info\xa1\x67version\x62V7" + bytes(20), FormatError, "CBOR"),
    "config.json": (b'{"a": 1, "b": [1, 2, 3]}', FormatError, "JSON"),
    "array.npy": (b"\x93NUMPY\x01\0" + bytes(50), FormatError, "NumPy"),
    "zeros.pth": (bytes(5000), FormatError, "zeros"),
    "empty.pth": (b"", FormatError, "empty"),
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
REMEDY = (
    "name the",
    "again",
    "save",
    "download",
    "give",
    "ask",
    "unpack",
    "need",
    "use ",
    "run ",
    "needs that",
    "writes far fewer",
)


def read_all(path):
    with read_tensors(path) as file:
        return [file.read(key) for key in file]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_kind_name_and_remedy(tmp_path, name):
    raw, error, words = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(LoadError) as caught:
        read_all(path)
    message = str(caught.value)
    assert type(caught.value) is error or (error is FormatError and type(caught.value) is TruncatedError)
    assert ascii(path.name)[1:-1].encode().decode("unicode_escape")[-6:] in message or "\\x1b" in message
    assert words in message
    assert any(word in message for word in REMEDY), message
    assert len(message) < 400
    assert message.isprintable()
    assert not os.path.exists("/tmp/rwkvlab-canary")


def test_the_honest_files_that_these_are_made_from_are_read(tmp_path):
    for name, raw in (("a.pth", archive()), ("a.safetensors", safe(one()))):
        (tmp_path / name).write_bytes(raw)
        with read_tensors(tmp_path / name) as file:
            assert file.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_every_cut_of_a_file_is_refused(tmp_path):
    path = tmp_path / "cut"
    for raw in (saved({"w": torch.ones(3), "b": torch.ones(2)}), safe(one())):
        for end in range(0, len(raw), 7):
            path.write_bytes(raw[:end])
            with pytest.raises(LoadError, match="cut"):
                read_tensors(path)


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    path = tmp_path / "flip.pth"
    honest = saved({"w": torch.arange(3.0)})
    refused = 0
    for at in range(0, len(honest)):
        raw = bytearray(honest)
        raw[at] ^= 0x55
        path.write_bytes(raw)
        try:
            with read_tensors(path) as file:
                value = file.read("w").tolist()
        except LoadError:
            refused += 1
        else:
            assert value == [0, 1, 2]
    assert refused > len(honest) // 4


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = {"pipe": "named pipe", "": "a folder", "missing": "no such file", "dangling": "link", "loop": "link"}
    for name, words in cases.items():
        with pytest.raises(PathError, match=words):
            read_tensors(tmp_path / name)
    with pytest.raises(PathError, match="a device"):
        read_tensors("/dev/zero")
    for wrong in (None, 5, "", "a\0b", b"bytes"):
        with pytest.raises(PathError, match="path"):
            read_tensors(wrong)


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
