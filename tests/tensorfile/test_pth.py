"""A .pth that is damaged, or made to harm, is refused before anything in it acts."""

import io
import pickle
import struct
import zipfile

import pytest
import torch

from rwkvlab.errors import FormatError, LimitError, LoadError, SchemaError, TruncatedError, UnsafeFileError
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


SHARED = entries(*((f"w{i}", tensor(numel=1024, shape=(1024,), stride=(1,))) for i in range(200)))
DEEP = b"\x80\x02" + b"]" * 140_000 + b"a" * 139_999 + b"."
LAUGHS = b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % i * 9 + b"eq%c" % (i + 1) for i in range(60)) + b"."

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
    "script.pth": (archive(more=[("archive/constants.pkl", b"")]), FormatError, "TorchScript"),
    "two_roots.pth": (archive(more=[("other/data.pkl", b"")]), FormatError, "'other/data.pkl'"),
    "stranger.pth": (archive(more=[("archive/run.py", b"")]), FormatError, "'archive/run.py'"),
    "up.pth": (archive(more=[("archive/data/../x", b"")]), FormatError, "torch.save writes"),
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
    "a_mixed_list.pth": (archive(b"\x80\x02](" + tensor() + b"Ne."), FormatError, "item 1 of its list: is a NoneType"),
    "a_nested_list.pth": (archive(b"\x80\x02](](" + tensor() + b"ee."), FormatError, "item 0 of its list: is a list"),
    "an_empty_list.pth": (archive(b"\x80\x02]."), SchemaError, "no tensors"),
    "a_list_of_one.pth": (
        archive(b"\x80\x02](" + tensor() + b"q\0" + b"h\0" * 3000 + b"e."),
        LimitError,
        "share their",
    ),
    "a_list_in_itself.pth": (archive(b"\x80\x02]q\x00h\x00a."), FormatError, "item 0 of its list: is a list"),
    "a_tuple.pth": (archive(b"\x80\x02(" + tensor() + tensor() + b"t."), FormatError, "holds a tuple"),
    "one_tensor.pth": (archive(b"\x80\x02" + tensor() + b"."), SchemaError, "one tensor without a name"),
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
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_kind_name_and_remedy(refused, name):
    refused(name, *HOSTILE[name])


def test_the_honest_file_that_these_are_made_from_is_read(tmp_path):
    (tmp_path / "a.pth").write_bytes(archive())
    with read_tensors(tmp_path / "a.pth") as file:
        assert file.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_list_of_tensors_is_named_by_its_indices(tmp_path):
    tensors = [torch.arange(float(n)) for n in range(1, 13)]
    (tmp_path / "a").write_bytes(saved(tensors))
    with read_tensors(tmp_path / "a") as file:
        assert file.is_list
        assert file.keys() == [str(i) for i in range(12)]
        assert all(torch.equal(file.read(str(i)), tensor) for i, tensor in enumerate(tensors))
    (tmp_path / "b").write_bytes(saved({str(i): tensor for i, tensor in enumerate(tensors)}))
    with read_tensors(tmp_path / "b") as file:
        assert not file.is_list


def test_every_cut_is_refused(tmp_path):
    path, raw = tmp_path / "cut", saved({"w": torch.ones(3), "b": torch.ones(2)})
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
