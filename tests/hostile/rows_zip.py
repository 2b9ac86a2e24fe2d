"""Rows 4, 6, 7, 8, 10, 11, 15, 16, 19, 21 and 30: archives that are cut, flipped, doubled or that lie about sizes."""

import functools
import io
import os
import struct
import zipfile
import zlib

import builders as b
import torch
from builders import FLOATS, HONEST, STATE, archive, pack, pickled, plain, saved, tensor
from corpus import Case

from rwkvlab.errors import FormatError, LimitError, SchemaError, TruncatedError, UnsafeFileError

ROOT = "archive/"
PICKLE = (ROOT + "data.pkl", HONEST)
RECORD = (ROOT + "data/0", FLOATS)
EITHER = (FormatError, TruncatedError)


def tampered(member=1, **fields):
    return archive(change={member: fields})


def zip64(*values, kind=1):
    return struct.pack("<2H", kind, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


def with_end64(count=2, size=None, start=None, sig=b"PK\x06\x06", length=44, at=0, end=None, disks=(0, 0)):
    """An archive with zip64 end records, whose fields may lie."""
    raw = archive()
    tail = raw.rindex(b"PK\x05\x06")
    first, total = struct.unpack_from("<I", raw, tail + 16)[0], struct.unpack_from("<I", raw, tail + 12)[0]
    record = struct.pack("<4sQ2H2I4Q", sig, length, 45, 45, *disks, count, count, size or total, start or first)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, tail + at, 1)
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, *(end or (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)), 0)
    return raw[:tail] + record + locator + last


def aliased(copies):
    """Directory entries that all point to the same record."""
    names = [(f"{ROOT}data/{i}", FLOATS if i == 0 else b"") for i in range(copies)]
    place = len(pack([PICKLE], suffix=b"")) - 22 - 46 - len(PICKLE[0])
    change = {i + 1: {"offset": place, "crc": zlib.crc32(FLOATS), "size": 24, "packed": 24} for i in range(1, copies)}
    return pack([PICKLE, *names], change=change)


TWICE = [(ROOT + "data.pkl", pickled(("w", tensor(key="1"))))]
POLYGLOT = b.safe({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234") + archive()
ROW_4 = [
    Case(4, "two_pickles.pth", archive(more=TWICE), FormatError, "'archive/data.pkl' is there twice"),
    Case(4, "two_roots.pth", archive(more=[("other/data.pkl", HONEST)]), FormatError, "'other/data.pkl'"),
    Case(4, "no_root.pth", archive(root=""), FormatError, "member"),
    Case(4, "deep_root.pth", archive(root="a/b/"), FormatError, "'a/b/data.pkl'"),
    Case(4, "two_records.pth", archive(more=[RECORD]), FormatError, "'archive/data/0' is there twice"),
    Case(4, "stranger.pth", archive(more=[(ROOT + "run.py", b"")]), FormatError, "'archive/run.py'"),
    Case(4, "up.pth", archive(more=[(ROOT + "data/../../x", b"")]), FormatError, "none that torch.save writes"),
    Case(4, "a_folder.pth", archive(more=[(ROOT + "data/", b"")]), FormatError, "'archive/data/'"),
    Case(4, "escape.pth", archive(more=[(ROOT + "\x1b[2J\u202e", b"")]), FormatError, "\\x1b"),
    Case(4, "not_utf8.pth", archive(more=[(b"archive/data/\xff", b"")]), FormatError, "not UTF-8"),
    Case(4, "marked_as_a_folder.pth", archive(change={1: {"attributes": 16}}), FormatError, "damaged entry"),
    Case(4, "empty_name.pth", archive(more=[("", b"")]), FormatError, "damaged entry"),
    Case(4, "nul_name.pth", archive(more=[(ROOT + "data/0\0.txt", b"")]), FormatError, "\\x00"),
    Case(4, "case.pth", archive(more=[("Archive/data.pkl", b"")]), FormatError, "'Archive/data.pkl'"),
    Case(4, "prefix.pth", archive(prefix=b"#!/bin/sh\n"), FormatError, "no tensor file"),
    Case(4, "zip_prefix.pth", archive(prefix=b"PK\x03\x04junk"), FormatError, "starts at byte 8, need 0"),
    Case(4, "suffix.pth", archive(suffix=b"more"), FormatError, "4 bytes follow"),
    Case(4, "comment.pth", archive(comment=b"note"), FormatError, "follow the end"),
    Case(4, "gap.pth", archive(gap=b"junk"), FormatError, "belong to no member"),
    Case(4, "gap_between.pth", archive(change={0: {"behind": b"junk"}}), FormatError, "no gap, no overlap"),
    Case(4, "polyglot.pth", POLYGLOT, FormatError, "follow the last tensor"),
    Case(4, "polyglot_html.pth", b"<html>" + archive(), FormatError, "HTML"),
    Case(4, "two_archives.pth", archive() + archive(), FormatError, "does not end where"),
    Case(4, "no_pickle.pth", pack([RECORD]), FormatError, "archive of other files ('archive/data/0')"),
    Case(4, "no_members.pth", pack([]), FormatError, "empty zip"),
    Case(4, "only_a_local_header.pth", b"PK\x03\x04" + bytes(60), TruncatedError, "lacks the end"),
]  # fmt: skip

WHOLE = saved({STATE: torch.ones(2, 8, 8)})
CUTS = [(WHOLE, "pth", int(len(WHOLE) * part)) for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.999)]
SAFE = b.safe_of({STATE: torch.ones(2, 8, 8)}, {"format": "pt"})
CUTS += [(SAFE, "safetensors", end) for end in (1, 7, 8, 9, 40, 90, 200, len(SAFE) - 1)]
ROW_6 = [
    Case(6, f"cut_at_{end}.{suffix}", raw[:end], TruncatedError, f"cut_at_{end}.{suffix}") for raw, suffix, end in CUTS
]


def flips():
    """Bytes of the structure, one changed at a time: signatures, names, sizes, counts."""
    raw = archive()
    start, end = raw.index(b"PK\x01\x02"), raw.rindex(b"PK\x05\x06")
    local = raw.index(b"PK\x03\x04", 4)
    places = {"first_signature": 0, "local_signature": local, "local_crc": local + 14, "local_size": local + 18}
    places |= {"local_name_length": local + 26, "local_extra_length": local + 28, "local_name": local + 32}
    places |= {"directory_signature": start, "directory_crc": start + 16, "directory_packed": start + 20}
    places |= {"directory_size": start + 24, "directory_name_length": start + 28, "directory_extra": start + 30}
    places |= {"directory_note": start + 32, "directory_offset": start + 42, "directory_name": start + 50}
    places |= {"end_disk": end + 4, "end_here": end + 8, "end_count": end + 10, "end_size": end + 12}
    places |= {"end_start": end + 16, "end_note": end + 20, "pickle": raw.index(HONEST) + 3}
    for name, at in places.items():
        flipped = bytearray(raw)
        flipped[at] ^= 0x41
        yield name, bytes(flipped)


ROW_7 = [Case(7, f"flip_{name}.pth", raw, EITHER, ".pth'", by="read peek state model") for name, raw in flips()]
ROW_7 += [
    Case(7, "flip_end_signature.pth", archive(end={"sig": b"PK\x05\x07"}), TruncatedError, "lacks the end"),
    Case(7, "fewer_counted.pth", archive(end={"here": 1, "count": 1}), FormatError, "belong to no member"),
    Case(7, "more_counted.pth", archive(end={"here": 3, "count": 3}), FormatError, "fewer than 3"),
    Case(7, "none_counted.pth", archive(end={"here": 0, "count": 0}), FormatError, "belong to no member"),
    Case(7, "counts_differ.pth", archive(end={"here": 1}), FormatError, "counts 1 and 2"),
    Case(7, "directory_elsewhere.pth", archive(end={"start": 0}), FormatError, "does not end where"),
    Case(7, "end64_elsewhere.pth", with_end64(at=8), FormatError, "not where it should be"),
    Case(7, "end64_signature.pth", with_end64(sig=b"PK\x06\x05"), FormatError, "damaged"),
    Case(7, "end64_length.pth", with_end64(length=45), FormatError, "damaged"),
    Case(7, "end64_disagrees.pth", with_end64(end=(3, 3, 0xFFFFFFFF, 0xFFFFFFFF)), FormatError, "disagree"),
    Case(7, "end64_disks.pth", with_end64(disks=(1, 0)), FormatError, "damaged"),
    Case(7, "end64_far.pth", with_end64(start=2**63), EITHER, "end64_far"),
    Case(7, "end64_before.pth", with_end64(at=-10_000_000_000 % 2**64), FormatError, "not where it should be"),
]


def damaged(at=5):
    """A tuned state of which one byte of the second layer is wrong."""
    raw = bytearray(saved(b.heads()))
    raw[raw.rindex(struct.pack("<f", 1.5)) + 2] ^= at
    return bytes(raw)


def flipped_record(first=False):
    raw = bytearray(archive())
    at = raw.index(FLOATS)
    raw[at if first else at + 20] ^= 1
    return bytes(raw)


TAIL = pickled(("w", tensor(numel=64, shape=(2,), stride=(1,))))
ROW_8 = [
    Case(8, "flipped.pth", flipped_record(), FormatError, "'w': its bytes are damaged (CRC-32", by="read"),
    Case(8, "first_bit.pth", flipped_record(True), FormatError, "CRC-32 differs in 'data/0'", by="read"),
    Case(8, "state.pth", damaged(), FormatError, "'blocks.1.att.time_state': its bytes are damaged", by="state fit"),
    Case(8, "state_sign.pth", damaged(0x80), FormatError, "CRC-32 differs in 'data/1'", by="read state"),
    Case(8, "outside_the_view.pth",
         archive(TAIL, bytes(256), change={1: {"data": bytes(255) + b"\1"}}), FormatError, "'data/0'", by="read"),
    Case(8, "pickle.pth", archive(change={0: {"data": HONEST.replace(b"cpu", b"cpx")}}), FormatError,
         "CRC-32 differs in data.pkl"),
    Case(8, "wrong_sum.pth", archive(change={1: {"crc": 5}}), FormatError, "CRC-32 differs", by="read"),
]  # fmt: skip


def squeezed(method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr(ROOT + "data.pkl", HONEST)
        file.writestr(ROOT + "data/0", FLOATS)
    return out.getvalue()


def bomb():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(ROOT + "data.pkl", HONEST)
        file.writestr(ROOT + "data/0", bytes(64 << 20))
    return out.getvalue()


ROW_10 = [
    Case(10, "deflated.pth", squeezed(zipfile.ZIP_DEFLATED), LimitError, "is compressed"),
    Case(10, "bzip2.pth", squeezed(zipfile.ZIP_BZIP2), LimitError, "is compressed"),
    Case(10, "lzma.pth", squeezed(zipfile.ZIP_LZMA), LimitError, "is compressed"),
    Case(10, "bomb.pth", lambda _: bomb(), LimitError, "is compressed"),
    Case(10, "one_deflated.pth", tampered(method=8), LimitError, "'archive/data/0': is compressed"),
    Case(10, "stored_in_one_place.pth", tampered(local_method=8), FormatError, "disagree"),
    Case(10, "encrypted.pth", tampered(flags=1), LimitError, "'archive/data/0': is encrypted"),
    Case(10, "strongly_encrypted.pth", tampered(flags=0x41), LimitError, "is encrypted"),
    Case(10, "unknown_method.pth", tampered(method=99), LimitError, "is compressed"),
]
FULL = 0xFFFFFFFF
SHARED = pickled(*((f"w{i}", tensor(numel=1024, shape=(1024,), stride=(1,))) for i in range(200)))


def long_name(tensors, letters=65_000):
    """A .pth of one-number tensors that share a storage with a long name."""
    first = b.storage("1" * letters, tensors) + b"q\0"
    items = (tensor(shape=(), stride=(), offset=i, storage=b"h\0" if i else first) for i in range(tensors))
    members = [
        (ROOT + "data.pkl", b"\x80\x02](" + b"".join(items) + b"e."),
        (ROOT + "data/" + "1" * letters, bytes(4 * tensors)),
    ]
    return pack(members)


ROW_11 = [
    Case(11, "aliased.pth", aliased(2), EITHER, "aliased"),
    Case(11, "aliased_4000.pth", aliased(4000), EITHER, "starts at byte"),
    Case(11, "members_30000.pth", archive(end={"here": 30_000, "count": 30_000}), LimitError, "30,000 members"),
    Case(11, "members_2_63.pth", with_end64(count=2**63), LimitError, "members"),
    Case(11, "directory_2_63.pth", with_end64(size=2**63), LimitError, "directory of 9,223"),
    Case(11, "shared.pth", archive(SHARED, bytes(4096)), LimitError, "some share their bytes"),
    Case(11, "shared_by_memo.pth",
         archive(b"\x80\x02](" + tensor() + b"q\0" + b"h\0" * 3000 + b"e."), LimitError, "some share"),
    Case(11, "long_name_of_a_storage.pth", lambda _: long_name(15_000),
         FormatError, "not described as torch.save does", by="read"),
    Case(11, "many_of_one.pth", lambda _: long_name(20_001, 20), LimitError, "20,001 tensors", by="read"),
    Case(11, "overlapping.pth", tampered(offset=10), FormatError, "no gap, no overlap"),
    Case(11, "past_the_end.pth", tampered(size=10**6, packed=10**6, local_size=10**6, local_packed=10**6),
         EITHER, "ends at byte"),
    Case(11, "offset_2_63.pth", tampered(offset=FULL, extra=zip64(2**63)), FormatError, "need"),
    Case(11, "size_2_63.pth",
         tampered(size=FULL, packed=FULL, extra=zip64(2**63, 2**63)), EITHER, "'archive/data/0'"),
    Case(11, "sizes_without_zip64.pth", tampered(size=FULL, packed=FULL), FormatError, "lacks its 64-bit sizes"),
    Case(11, "short_zip64.pth", tampered(size=FULL, packed=FULL, extra=zip64(24)), FormatError, "64-bit"),
    Case(11, "another_extra.pth", tampered(size=FULL, extra=zip64(24, kind=9)), FormatError, "64-bit"),
    Case(11, "two_sizes.pth", tampered(packed=23), FormatError, "two sizes, 23 and 24"),
    Case(11, "late_and_lying.pth",
         tampered(flags=8, local_crc=0, local_size=0, local_packed=0, behind=b"PK\x07\x08" + bytes(12)),
         FormatError, "does not repeat"),
]  # fmt: skip


def viewed(**changes):
    return archive(pickled(("w", tensor(**changes))))


BIG = 2**62 - 1
ROW_15 = [
    Case(15, f"{name}.pth", viewed(**changes), FormatError, words)
    for name, changes, words in [
        ("stride_0", {"stride": (0, 1)}, "stride [0, 1]"),
        ("all_strides_0", {"stride": (0, 0)}, "overlap"),
        ("overlapping", {"stride": (1, 1)}, "overlap"),
        ("overlapping_by_one", {"stride": (2, 1)}, "overlap"),
        ("negative", {"stride": (-3, 1)}, "stride: need whole numbers >= 0, got -3"),
        ("too_far", {"stride": (4, 1)}, "reaches to 7"),
        ("offset_too_far", {"offset": 1}, "reaches to 7"),
        ("stride_2_61", {"stride": (2**61, 1)}, "reaches to"),
        ("stride_2_63", {"stride": (2**63, 1)}, "stride"),
        ("fewer_strides", {"stride": (1,)}, "does not go with shape"),
        ("no_strides", {"stride": ()}, "does not go with shape"),
        ("float_stride", {"stride": b"(G@\x08\0\0\0\0\0\0" + b.whole(1) + b"t"}, "opcode 0x47"),
        ("stride_none", {"stride": None}, "stride: need a list"),
        ("stride_true", {"stride": (3, True)}, "stride: need whole numbers >= 0, got bool"),
        ("stride_text", {"stride": "31"}, "stride: need a list"),
        ("large_numbers", {"shape": (2**7,) * 8, "stride": (BIG,) * 8}, "stride"),
        ("large_numbers_in_both", {"shape": (1,) * 7 + (BIG,), "stride": (BIG,) * 7 + (0,)}, "overlap"),
    ]
]
ROW_16 = [
    Case(16, f"{name}.pth", viewed(**changes), FormatError, words)
    for name, changes, words in [
        ("offset_negative", {"offset": -1}, "offset: need whole numbers >= 0, got -1"),
        ("offset_2_62", {"offset": 2**62}, "offset"),
        ("offset_2_61", {"offset": 2**61}, "reaches to"),
        ("offset_2_2000", {"offset": 2**2000}, "offset: need whole numbers >= 0, got int"),
        ("offset_true", {"offset": True}, "offset"),
        ("offset_text", {"offset": "0"}, "got str"),
        ("shape_negative", {"shape": (-2, -3)}, "shape: need whole numbers >= 0"),
        ("shape_2_62", {"shape": (2**62, 3)}, "shape"),
        ("shape_2_63", {"shape": (2**31, 2**32), "stride": (1, 1)}, "shape"),
        ("shape_with_a_zero", {"shape": (0, 2**61, 2**61), "stride": (1, 1, 1)}, "shape"),
        ("numel_2_61", {"numel": 2**61}, "24 bytes, need 2,305,843,009,213,693,952 x 4"),
        ("numel_2_63", {"numel": 2**63}, "storage size"),
        ("numel_negative", {"numel": -6}, "storage size"),
        ("numel_5", {"numel": 5}, "24 bytes, need 5 x 4"),
        ("numel_7", {"numel": 7}, "24 bytes, need 7 x 4"),
        ("numel_true", {"numel": True}, "storage size"),
        ("as_half", {"kind": "torch.HalfStorage"}, "need 6 x 2"),
        ("as_double", {"kind": "torch.DoubleStorage"}, "need 6 x 8"),
        ("nine_axes", {"shape": (1,) * 9, "stride": (1,) * 9}, "at most 8"),
    ]
]


def described_twice(**changes):
    return archive(pickled(("a", tensor()), ("b", tensor(**changes))))


ROW_16 += [
    Case(16, "record_longer.pth", archive(data=FLOATS + b"1234"), FormatError, "28 bytes"),
    Case(16, "record_shorter.pth", archive(data=FLOATS[:-4]), FormatError, "20 bytes"),
    Case(16, "record_empty.pth", archive(data=b""), FormatError, "0 bytes"),
    Case(16, "long_key.pth",
         pack([(ROOT + "data.pkl", pickled(("w", tensor(key="k" * 9000)))), (ROOT + "data/" + "k" * 9000, b"")]),
         FormatError, "not described as torch.save does"),
    Case(16, "two_dtypes.pth", described_twice(kind="torch.HalfStorage", numel=12, offset=1),
         FormatError, "storage '0' is described in two ways"),
    Case(16, "two_dtypes_of_a_size.pth",
         archive(pickled(("a", tensor(kind="torch.HalfStorage")), ("b", tensor(kind="torch.BFloat16Storage"))),
                 FLOATS[:12]), FormatError, "storage '0' is described in two ways"),
    Case(16, "two_sizes_of_a_storage.pth", described_twice(numel=7), FormatError, "is described in two ways"),
]  # fmt: skip


def flagged(**flags):
    return viewed(rest=(flags,))


def with_member(name, data):
    return archive(more=[(ROOT + name, data)])


ROW_19 = [
    Case(19, "conjugate.pth", flagged(conj=True), UnsafeFileError, "flags"),
    Case(19, "negative.pth", flagged(neg=True), UnsafeFileError, "flags"),
    Case(19, "two_metadata.pth", viewed(rest=({}, {})), UnsafeFileError, "flags"),
    Case(19, "complex.pth", saved({"w": torch.ones(2, dtype=torch.cfloat).conj()}), SchemaError, "Complex"),
    Case(19, "imaginary.pth", saved({"w": torch.ones(2, dtype=torch.cfloat).conj().imag}),
         (UnsafeFileError, SchemaError), "data.pkl"),
    Case(19, "big.pth", with_member("byteorder", b"big"), FormatError, "byteorder: got 'big'"),
    Case(19, "no_order.pth", with_member("byteorder", b""), FormatError, "byteorder: got ''"),
    Case(19, "long_order.pth", with_member("byteorder", b"little" * 9999), FormatError, "byteorder"),
    Case(19, "odd_order.pth", with_member("byteorder", b"\x1b[2J\xff"), FormatError, "\\x1b"),
    Case(19, "alignment_0.pth", with_member(".storage_alignment", b"0"), FormatError, "storage_alignment"),
    Case(19, "alignment_63.pth", with_member(".storage_alignment", b"63"), FormatError, "storage_alignment: got '63'"),
    Case(19, "alignment_text.pth", with_member(".storage_alignment", b"\x1b]0;"), FormatError, "storage_alignment"),
    Case(19, "alignment_minus.pth", with_member(".storage_alignment", b"-64"), FormatError, "storage_alignment"),
]  # fmt: skip
ROW_21 = [
    Case(21, "no_record.pth", viewed(key="7"), FormatError, "its bytes (data/'7') are missing"),
    Case(21, "record_up.pth", viewed(key="../data.pkl"), FormatError, "are missing"),
    Case(21, "record_empty_key.pth", viewed(key=""), FormatError, "are missing"),
    Case(21, "record_escape.pth", viewed(key="\x1b[2J" + "x" * 9), FormatError, "\\x1b"),
    Case(21, "record_of_21_letters.pth", viewed(key="1" * 21), FormatError, "not described as torch.save does"),
    Case(21, "key_is_a_number.pth",
         archive(pickled(("w", plain(("storage", b.name_of("torch.FloatStorage"), 0, "cpu", 6)) + b"Q"))),
         FormatError, "not described as torch.save does"),
    Case(21, "storage_alone.pth", archive(pickled(("w", b.storage()))), FormatError, "'w': is a Storage"),
    Case(21, "legacy_unfilled.pth",
         saved({"w": torch.ones(9)}, _use_new_zipfile_serialization=False)[:-16], UnsafeFileError, "1.6"),
    Case(21, "legacy_of_views.pth",
         saved({"w": torch.ones(9)[2:], "v": torch.ones(2)}, _use_new_zipfile_serialization=False)[:-4],
         UnsafeFileError, "re-save it"),
]  # fmt: skip


def sparse(folder, name, head, size):
    path = folder / name
    path.write_bytes(head)
    os.truncate(path, size)
    return path


def _sparse_case(name, head, size, words="on disk"):
    return Case(30, name, functools.partial(sparse, name=name, head=head, size=size), LimitError, words)


def _claims(size):
    return b.safe(b.one(shape=[size // 4], data_offsets=[0, size]), b"")


ROW_30 = [
    _sparse_case("a_terabyte.safetensors", _claims(2**40), len(_claims(2**40)) + 2**40),
    _sparse_case("eight_gib.safetensors", _claims(2**33), len(_claims(2**33)) + 2**33),
    _sparse_case("eight_gib.pth", archive()[:200], 2**33),
    _sparse_case("three_gib_of_nothing.pth", b"", 3 << 30, "holds 0 on disk"),
    _sparse_case("a_gib.json", b'{"data": [1', 2**30),
    _sparse_case("above_64_mib.st", _claims(2**27), len(_claims(2**27)) + 2**27),
]
CASES = [*ROW_4, *ROW_6, *ROW_7, *ROW_8, *ROW_10, *ROW_11, *ROW_15, *ROW_16, *ROW_19, *ROW_21, *ROW_30]
