"""The table of a shelf says of each file what it is and whether it fits, and nothing from a file acts in it."""

import html.parser
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from rwkvlab.errors import ArgError, FormatError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.columns import cut, pad, straight, text_width
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_files import Slot
from rwkvlab.states.shelf_table import Table
from rwkvlab.states.state import State

LONG = "rwkv-x060-chn_文言文和古典名著_single_round_qa-7B-20240601-ctx2048"


def wkv(value=1.0, layers=2):
    return torch.full((layers, 1, 2, 2), float(value))


def model(arch="x070"):
    return SimpleNamespace(dims=Dims(arch, 2, 1, 2, 2, 2, 8, 9), card=ModelCard("m", arch, "ab" * 32))


@pytest.fixture
def folder(tmp_path):
    save_state(State(wkv()), tmp_path / f"{LONG}.pth")
    save_state(State(wkv()), tmp_path / "again.pth")
    save_state(State(wkv(2), card=StateCard("x", "x070", "00" * 32)), tmp_path / "other.safetensors")
    save_state(State(wkv(2, 3)), tmp_path / "tall.state")
    save_state(State(wkv(3)), tmp_path / "plain-2.9B.pth")
    save_state(State(wkv(4)), tmp_path / "emoji-3B.pth")
    (tmp_path / "page.pth").write_bytes(b"<html>")
    return tmp_path


def lines_of(text):
    return {line.split("  ")[0]: line for line in text.splitlines()}


def test_the_text_has_a_row_for_each_file_with_what_its_name_and_header_say(folder):
    text = repr(Shelf(folder))
    lines = lines_of(text)
    assert text.startswith("<Shelf '") and text.splitlines()[0].endswith("': 6 states, 1 unreadable>")
    row = next(line for name, line in lines.items() if name.startswith("rwkv-x060"))
    for words in (
        "chn_文言文",
        "RWKV-6",
        "7B",
        "2/1/2",
        "20240601",
        "2048",
        "yes",
        "unverified: same checksums as 'again'",
    ):
        assert words in row
    assert "no: is an HTML page" in lines["page"]
    assert "3/1/2" in lines["tall"]


def test_columns_stay_straight_with_wide_and_combining_characters(folder):
    save_state(State(wkv(5)), folder / "Cafe\u0301 \u0e17\u0e35.pth")
    head, *rows = repr(Shelf(folder)).splitlines()[1:]
    at = text_width(head[: head.index("reads")])
    assert len(rows) == 8
    for row in rows:
        before = next(row[:i] for i in range(len(row) + 1) if text_width(row[:i]) >= at)
        assert text_width(before) == at and row[len(before) :].startswith(("yes", "no: "))


def test_with_a_model_the_table_says_what_fits_and_why_the_rest_does_not(folder):
    shelf = Shelf(folder, model())
    assert sorted(shelf) == ["again", "emoji-3B", "plain-2.9B"]
    lines = lines_of(repr(shelf))
    assert "no: L=3 (model 2)" in lines["tall"]
    assert "no: its card names another base model" in lines["other"]
    assert "no: made for RWKV-6" in next(line for name, line in lines.items() if name.startswith("rwkv-x060"))
    assert "by its shape, but its name says '3B'" in lines["emoji-3B"]
    assert lines["again"].rstrip().endswith("yes")
    for word in ("L=3 (model 2)", "made for RWKV-6", "an HTML page"):
        assert word in shelf._repr_html_()


def test_the_frame_has_one_row_a_file_and_typed_columns(folder):
    table = Shelf(folder, model()).table()
    assert list(table.columns) == [
        *(
            "name",
            "purpose",
            "arch",
            "size",
            "L",
            "H",
            "V",
            "K",
            "date",
            "ctx",
            "MiB",
            "fits",
            "reason",
            "note",
            "file",
        ),
    ]
    rows = table.set_index("name")
    assert len(table) == 7 and rows["fits"].sum() == 3 and rows["fits"].notna().all()
    assert rows.loc[LONG, ["size", "date", "ctx", "L", "K"]].tolist() == ["7B", "20240601", 2048, 2, 2]
    assert pd.isna(rows.loc["page", "L"]) and "HTML" in rows.loc["page", "reason"]
    assert rows.loc["tall", "L"] == 3 and rows.loc["again", "reason"] == ""
    assert rows.loc["again", "file"] == str(folder / "again.pth")
    assert rows.loc["again", "MiB"] == (folder / "again.pth").stat().st_size / 2**20
    assert Shelf(folder).table()["fits"].isna().all()


def test_an_empty_folder_has_an_empty_table(tmp_path):
    assert repr(Shelf(tmp_path)).endswith(": 0 states>") and len(Shelf(tmp_path).table()) == 0
    assert "<table" not in Shelf(tmp_path)._repr_html_()


def test_files_of_the_same_numbers_are_told_where_that_is_sure(folder):
    save_state(State(wkv(2), card=StateCard("y", "x060")), folder / "renamed.safetensors")
    save_state(State(wkv(7)), folder / "seven.pth")
    notes = Shelf(folder).table().set_index("name")["note"]
    for name, first in (("renamed", "other"), (LONG, "again")):
        assert notes[name] == f"unverified: same checksums as '{first}'"
    assert (notes != "").sum() == 2


def test_a_copy_that_proved_to_be_damaged_is_not_told_to_be_the_same(tmp_path):
    good = State(torch.arange(8.0).view(2, 1, 2, 2) + 1)
    for name in ("a", "b"):
        save_state(good, tmp_path / f"{name}.pth")
    raw = bytearray((tmp_path / "a.pth").read_bytes())
    raw[raw.index(good.wkv[0].numpy().tobytes())] ^= 1
    (tmp_path / "a.pth").write_bytes(raw)
    shelf = Shelf(tmp_path)
    assert shelf.table().set_index("name")["note"]["b"] == "unverified: same checksums as 'a'"
    with pytest.raises(FormatError, match="CRC"):
        shelf["a"]
    assert list(shelf) == ["b"] and (shelf.table()["note"] == "").all()


def test_a_reason_that_is_cut_stands_in_full_below_the_table(tmp_path):
    torch.save({f"some.rather.long.key.of.weights.{i}": torch.ones(2) for i in range(3)}, tmp_path / "odd.pth")
    (tmp_path / "page.pth").write_bytes(b"<html>")
    shelf = Shelf(tmp_path)
    cell, below = [line for line in repr(shelf).splitlines() if line.startswith("odd")]
    assert "no: " in cell and cell.endswith("…")
    assert below == f"odd: {shelf.unreadable['odd']}" and "; " in below
    assert repr(shelf).count("HTML") == 1


def test_a_slot_that_another_thread_reads_meanwhile_changes_no_table(folder):
    shelf = Shelf(folder)
    slots = {name: Slot(str(shelf.path(name))) for name in shelf}
    table = Table("t", slots, False, None)
    for slot in slots.values():
        slot.check(None)
    assert "unverified" not in table.text() and len(table.frame()) == 6


def test_long_tables_are_cut_and_what_is_bad_is_still_seen(tmp_path):
    for i in range(30):
        save_state(State(wkv(i)), tmp_path / f"good{i:02}.pth")
        (tmp_path / f"bad{i:02}.pth").write_bytes(b"<html>")
    text = repr(Shelf(tmp_path))
    assert text.count("good") == 20 and text.count("no: is an HTML page") == 10
    assert text.splitlines()[-3:] == ["… 10 more", "… 20 more unreadable", "shelf.table() has all rows"]


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)<|script>",
        '"><img src=x onerror=alert(1)>',
        "\x1b[2J\x1b]8;;http:x\x07",
        "\u202egnp.exe",
        "a\nb\rc\td",
        "x" * 240,
        "$\\href{javascript:x}{y}$",
        "&lt;b&gt;",
    ],
)
def test_names_cannot_act_in_any_table(tmp_path, name):
    for suffix, data in ((".pth", b"<html>"), (".state", None)):
        if data is None:
            save_state(State(wkv()), tmp_path / "x.state")
            (tmp_path / "x.state").rename(tmp_path / f"{name}{suffix}")
        else:
            (tmp_path / f"{name}{suffix}").write_bytes(data)
    shelf = Shelf(tmp_path)
    page = Tags()
    page.feed(shelf._repr_html_())
    assert page.seen <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes <= {"style", "class"}
    assert shelf._repr_html_().isprintable()
    assert all(line.isprintable() for line in repr(shelf).split("\n"))
    assert max(map(text_width, repr(shelf).splitlines())) < 260
    table = shelf.table()
    assert all(str(cell).isprintable() for cell in table.to_numpy().ravel())
    page.feed(table._repr_html_())
    assert not page.seen & {"script", "img", "svg", "iframe"}


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ArgError, match="model: need a model, got 'str'"):
        Shelf(tmp_path, "model.pth")


def test_cells_are_cut_and_padded_by_the_columns_they_take():
    assert [text_width(text) for text in ("ab", "文言", "e\u0301", "ｱ", "")] == [2, 4, 1, 1, 0]
    assert cut("文言文QA", 5) == "文言…" and cut("abc", 3) == "abc"
    assert pad("文", 4) == "文  "
    assert straight([["a", "文言文"], ["文言", "b"]], [3, 9]) == ["a    文言文", "文…  b"]
