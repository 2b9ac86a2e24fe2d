"""Ten thousand files are listed at a glance; headers are read when something is asked of them, tensors never."""

import io
import time
from types import SimpleNamespace

import pytest
import torch

from rwkvlab.errors import UnknownNameError
from rwkvlab.measure.arms import name_arms
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import CHECKED, Shelf
from rwkvlab.states.state import State
from rwkvlab.tensorfile import TensorFile
from rwkvlab.widgets import StatePicker

BAD = (
    b"<html>",
    b"",
    b"version https://git-lfs.github.com/spec/v1",
    b"GGUF" + bytes(60),
    b"\x80\x04N.",
    b"PK\3\4 torn",
)
WORDS = ("an HTML page", "empty", "git-lfs pointer", "a GGUF file", "pickle")


def contents(tmp_path, layers=2):
    found = []
    for name in ("a.pth", "a.state"):
        save_state(State(torch.ones(layers, 1, 2, 2)), tmp_path / name)
        found.append((tmp_path / name).read_bytes())
        (tmp_path / name).unlink()
    return found


def fill(folder, good, count, every):
    """Write `count` files, one in `every` bad; bad ones go through BAD in turn, the last kind only its header shows."""
    folder.mkdir()
    for i in range(count):
        data = BAD[i // every % len(BAD)] if i % every == every - 1 else good[i % len(good)]
        (folder / f"rwkv-x060-chn_文言文{i:05}-3B-20240505-ctx1024{('.pth', '.state')[i % 2]}").write_bytes(data)
    return folder


def test_ten_thousand_files_list_in_two_seconds_and_no_tensor_is_read(tmp_path, monkeypatch):
    folder = fill(tmp_path / "many", contents(tmp_path), 10_000, 5)
    monkeypatch.setattr(TensorFile, "read", None)
    opened = []
    opens = TensorFile.__init__
    monkeypatch.setattr(TensorFile, "__init__", lambda self, path: (opened.append(path), opens(self, path))[1])
    times = []
    for _ in range(5):  # a busy machine gets more chances
        opened.clear()
        start = time.perf_counter()
        shelf = Shelf(folder)
        names, text, page = list(shelf), repr(shelf), shelf._repr_html_()
        times.append(time.perf_counter() - start)
        if times[-1] < 2:
            break
    print(f"10,000 files: {times} s")
    assert min(times) < 2
    # the bad ones whose first bytes tell it, and the rows that are shown
    assert len(opened) < 2000 + 200
    # the headers of the rows that were shown told of four more
    assert len(names) == 8000 + 333 and len(shelf) == 8333 - 4 and len(shelf.unreadable) == 2000 - 333 + 4
    for reason in shelf.unreadable.values():
        assert any(words in reason for words in (*WORDS, "end of the archive"))
    assert "headers not read yet, shelf.check()" in text and f"… {8333 - 20:,} more" in text
    assert len(text.splitlines()) < 40 and page.count("<tr") < 160
    assert len(shelf.find("文言文")) == len(shelf)


@pytest.fixture
def large(tmp_path):
    good = contents(tmp_path)
    folder = fill(tmp_path / "large", good, CHECKED + 40, 20)
    for i in range(0, 40, 4):
        (folder / f"torn {i}.pth").write_bytes(good[0][:-9])
    return folder


def test_of_many_files_a_bad_header_shows_when_it_is_read(large):
    shelf = Shelf(large)
    before = len(shelf)
    assert "torn 4" in shelf._names.slots and "torn 4" not in shelf.unreadable
    assert "torn 4" not in shelf and "torn 4" in shelf.unreadable
    with pytest.raises(UnknownNameError, match=r"'torn 8' cannot be used.*torn 8\.pth"):
        shelf["torn 8"]
    assert len(shelf) == before - 2
    assert shelf.get("torn 12") is None
    assert shelf.check() is shelf
    assert len(shelf) == len(list(shelf)) == len(shelf.items()) == CHECKED + 40 - 12
    assert len(shelf.unreadable) == 12 + 10
    assert "not read yet" not in repr(shelf)


def test_items_values_arms_and_tables_of_many_files_leave_out_what_is_bad(large):
    assert len(dict(Shelf(large).items())) == CHECKED + 28
    assert all(state.wkv.shape == (2, 1, 2, 2) for state in Shelf(large).values())
    arms = name_arms(Shelf(large), zero_first=True)
    assert len(arms) == CHECKED + 29 and not any(name.startswith("torn") for name in arms)
    table = Shelf(large).table()
    assert len(table) == CHECKED + 50 and (table["reason"] == "").sum() == CHECKED + 28


def test_a_picker_of_many_files_says_what_turns_out_to_be_bad(large):
    model = SimpleNamespace(dims=Dims("x060", 2, 1, 2, 2, 2, 8, 9), card=ModelCard("m", "x060", ""))
    picker = StatePicker(Shelf(large), model)
    before = picker.name
    assert picker.state.wkv.shape == (2, 1, 2, 2)
    torn = next(at for at, row in enumerate(picker.table.rows) if row["cells"][0] == "torn 0")
    assert picker.table.rows[torn]["off"]
    picker.table._handle_custom_msg({"choose": torn, "version": picker.table.version}, [])
    assert picker.name == before and "cannot be used" in picker.caption.text


def test_few_files_are_all_checked_at_once(tmp_path):
    good = contents(tmp_path)
    folder = fill(tmp_path / "few", good, 60, 20)
    (folder / "torn.pth").write_bytes(good[0][:-9])
    shelf = Shelf(folder)
    assert "torn" in shelf.unreadable and all(slot.checked or slot.reason for slot in shelf._names.slots.values())
    for name in shelf:
        assert shelf[name].wkv.shape == (2, 1, 2, 2)


def test_checking_many_files_shows_how_far_it_is_and_warns_of_nothing(large, capsys, recwarn):
    buffer = io.BytesIO()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({f"blocks.{i}.att.time_state": torch.ones(1, 2, 2) for i in range(2)}, buffer)
    finally:
        torch.serialization.set_crc32_options(True)
    (large / "nocrc.pth").write_bytes(buffer.getvalue())
    shelf = Shelf(large).check()
    assert "headers" in capsys.readouterr().err and not recwarn.list
    with pytest.warns(UserWarning, match="CRC-32"):
        shelf["nocrc"]
