"""Odd files that are right are read, bit for bit, with what was odd about them noted."""

import os
import struct
import threading
from collections import Counter

import builders as b
import pytest
import torch
from builders import STATE, archive, heads, pickled, safe_of, saved, tensor
from corpus import MODEL
from rows_models import READER
from test_hostile_files import CASES

from rwkvlab.model.engine import load_model
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.state import State
from rwkvlab.tensorfile import read_tensors, write_pth

PLACES = ("cuda:0", "cuda:99", "meta", "xla:0", "mps", "privateuseone", "\x1b[2J", "")
BITS = torch.tensor([0x00000001, 0x807FFFFF - 2**32, 0, -(2**31), 0x7F7FFFFF, 0x00800000], dtype=torch.int32)
NUMBERS = BITS.view(torch.float32)  # subnormals, zeros of both signs, the largest, the smallest normal
NAMES = ["文言文", "🎉 état", "ｆｕｌｌ　ｗｉｄｔｈ", "a b  c", "é", "e\u0301", "عربي", "%41+&=#", "x" * 180, "'q'"]


def exact(a, b):
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def layers(values, dtype=torch.float32):
    made = heads()
    made[STATE].view(-1)[: len(values)] = torch.as_tensor(values)
    return {key: value.to(dtype) for key, value in made.items()}


@pytest.mark.parametrize("place", PLACES)
def test_row_20_a_location_tag_is_ignored(tmp_path, place):
    path = tmp_path / "a.pth"
    path.write_bytes(archive(pickled(("w", tensor(place=place)))))
    with read_tensors(path) as file:
        assert file.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.read("w").device.type == "cpu"


@pytest.mark.parametrize("largest", [3e38, -3e38, 65504.0, 70_000.0, 10_001.0])
def test_row_32_a_huge_value_is_kept_and_noted(tmp_path, largest):
    made = layers([largest])
    (tmp_path / "a.pth").write_bytes(saved(made))
    state = load_state(tmp_path / "a.pth", MODEL)
    assert exact(state.wkv[0], made[STATE])
    assert any("far above the states met in normal running" in note for note in state.card.notes)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "own.safetensors"])
def test_row_33_subnormals_and_signed_zeros_keep_their_bits(tmp_path, name):
    made, path = layers(NUMBERS), tmp_path / name
    if name.startswith("own"):
        save_state(State(torch.stack(list(made.values()))), path)
    else:
        path.write_bytes(saved(made) if name.endswith(".pth") else safe_of(made))
    state = load_state(path, orientation="VK")
    assert torch.equal(state.wkv[0].reshape(-1).view(torch.int32)[:6], BITS)


DOUBLE, SINGLE, HALF, BRAIN = torch.float64, torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize("dtypes", [(DOUBLE, DOUBLE), (SINGLE, BRAIN), (DOUBLE, HALF)])
def test_row_37_wide_and_mixed_dtypes_are_converted_and_noted(tmp_path, dtypes):
    made = {key: value.to(dtype) for (key, value), dtype in zip(heads().items(), dtypes, strict=True)}
    for name, raw in (("a.pth", saved(made)), ("b.safetensors", safe_of(made))):
        (tmp_path / name).write_bytes(raw)
        state = load_state(tmp_path / name, orientation="VK")
        assert state.wkv.dtype == torch.float32
        assert exact(state.wkv, torch.stack(list(heads().values())))
        assert any(note.startswith("stored as ") for note in state.card.notes)


@pytest.mark.parametrize("name", NAMES)
def test_row_48_names_of_every_script_go_round(tmp_path, name):
    state = State(torch.stack(list(heads().values())))
    for suffix in (".pth", ".state", ".safetensors"):
        path = save_state(state, tmp_path / f"{name}{suffix}")
        assert os.listdir(os.fsencode(tmp_path)) == [os.fsencode(f"{name}{suffix}")], "the bytes of the name changed"
        assert exact(load_state(path).wkv, state.wkv)
        os.unlink(path)


def test_row_54_links_in_a_folder_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots" / "0a1b").mkdir(parents=True)
    (tmp_path / "blobs" / "ff00").write_bytes(saved(heads()))
    link = tmp_path / "snapshots" / "0a1b" / "a.pth"
    link.symlink_to("../../blobs/ff00")
    (tmp_path / "b.pth").symlink_to(link)
    (tmp_path / "c").symlink_to(tmp_path / "snapshots")
    os.link(tmp_path / "blobs" / "ff00", tmp_path / "hard.pth")
    for path in (link, tmp_path / "b.pth", tmp_path / "c" / "0a1b" / "a.pth", tmp_path / "hard.pth"):
        assert exact(load_state(path).wkv, torch.stack(list(heads().values())))


@pytest.mark.parametrize("value", [3e38, -3e38, 1e30])
def test_row_47_a_saturated_decay_runs(tmp_path, value):
    path = tmp_path / "m.pth"
    path.write_bytes(saved(READER | {f"blocks.{i}.att.w0": torch.full((1, 1, 16), value) for i in (0, 1)}))
    model = load_model(path, tokenizer="bytes", device="cpu")
    assert model.forward([1, 2, 3]).logits.isfinite().all()


@pytest.mark.parametrize("change", ["replaced", "unlinked", "renamed"])
def test_row_57_an_open_file_stays_what_it_was_when_its_name_goes_elsewhere(tmp_path, change):
    path = tmp_path / "a.pth"
    write_pth(path, heads())
    with read_tensors(path) as file:
        if change == "replaced":
            write_pth(path, {key: value + 7 for key, value in heads().items()})
        elif change == "unlinked":
            path.unlink()
        else:
            path.rename(tmp_path / "b.pth")
        assert all(exact(file.read(key), value) for key, value in heads().items())


@pytest.mark.parametrize("suffix", [".pth", ".state", ".safetensors"])
def test_row_58_readers_beside_a_writer_see_one_whole_state_or_the_other(tmp_path, suffix):
    path, wrong, over = tmp_path / f"a{suffix}", [], threading.Event()
    states = [State(torch.full((3, 2, 8, 8), float(value))) for value in (1, 2)]
    save_state(states[0], path)

    def read():
        while not over.is_set():
            wkv = load_state(path).wkv
            if float(wkv.min()) != float(wkv.max()):
                wrong.append(wkv)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(30):
        save_state(states[turn % 2], path)
    over.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("call", ["flock", "lockf", "link"])
def test_row_59_no_lock_is_needed_to_save(tmp_path, monkeypatch, call):
    import fcntl

    def refuse(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(os if call == "link" else fcntl, call, refuse)
    (tmp_path / "a.pth.lock").write_text("99999")
    write_pth(tmp_path / "a.pth", heads())
    assert exact(load_state(tmp_path / "a.pth").wkv, torch.stack(list(heads().values())))


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("late.pth", {"flags": 8, "local_crc": 0, "local_size": 0, "local_packed": 0}),
        ("late_and_said.pth", {"flags": 8}),
        ("utf8.pth", {"flags": 0x800}),
    ],
)
def test_an_archive_as_other_writers_make_it_is_read(tmp_path, name, made):
    import zlib

    if made["flags"] == 8:
        made |= {"behind": struct.pack("<4sIII", b"PK\x07\x08", zlib.crc32(b.FLOATS), 24, 24)}
    (tmp_path / name).write_bytes(archive(change={1: made}))
    with read_tensors(tmp_path / name) as file:
        assert file.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


ACCEPTED = Counter({20: len(PLACES), 32: 5, 33: 3, 37: 6, 47: 3, 48: 3 * len(NAMES), 54: 4, 57: 3, 58: 3, 59: 3})
ROWS = [*range(1, 65), *range(67, 72)]  # 65 and 66 are configs that are read: tests/states/test_ai00.py
REFUSED_ROWS = {*ROWS} - {20, 33, 37, 48, 54, 58, 59}


def test_every_row_has_three_files_and_all_have_three_hundred():
    refused = Counter(case.row for case in CASES)
    both = refused + ACCEPTED
    table = [f"row {row:2}: {refused[row]:3} refused, {ACCEPTED[row]:3} read" for row in ROWS]
    print("\n".join([*table, f"in all: {refused.total()} refused, {ACCEPTED.total()} read"]))
    assert all(both[row] >= 3 for row in ROWS), [row for row in ROWS if both[row] < 3]
    assert set(refused) == REFUSED_ROWS
    assert refused.total() >= 600
    assert len({(case.row, case.name) for case in CASES}) == len(CASES), "two files of a row have one name"
    assert sum(case.row == 1 for case in CASES) >= 60
