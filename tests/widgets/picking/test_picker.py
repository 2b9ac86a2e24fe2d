import os
import shutil
import time

import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, PathError, RwkvLabError
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.widgets import StatePicker

HOSTILE = ("a\x1b[31m", "$\\href{javascript:x}{y}$", "<img src=x onerror=alert(1)>", "\u202egnp.exe", "a'b\"c\n")


@pytest.fixture
def states(random_state):
    return {name: random_state(name, seed) for seed, name in enumerate(("文言文", "emoji", "<b>x</b>"))}


@pytest.fixture
def folder(tmp_path, states, tiny):
    folder = tmp_path / "states"
    folder.mkdir()
    for name in ("文言文", "emoji"):
        save_state(states[name], folder / f"{name}.pth")
    save_state(State(torch.ones(2, 3, 16, 16)), folder / "three heads.pth")
    (folder / "<script>.pth").write_bytes(b"nothing")
    return folder


def listed(picker):
    """The first cells of the rows that are shown."""
    return [picker.table.rows[at]["cells"][0] for at in picker.table.shown]


def chosen(picker):
    """The first cell of the chosen row, None where none is."""
    at = picker.table.chosen
    return None if at < 0 else picker.table.rows[at]["cells"][0]


def click(picker, label, version=None):
    """What the browser says when a row is clicked."""
    at = [row["cells"][0] for row in picker.table.rows].index(label)
    picker.table._handle_custom_msg({"choose": at, "version": version or picker.table.version}, [])


def says(picker):
    return picker.caption.text.partition(" · ")[0]


def test_what_is_clicked_in_the_table_is_the_trait(states):
    picker = StatePicker(states)
    seen = []
    picker.observe(lambda change: seen.append(change["new"]), "state")
    assert (picker.name, picker.state, chosen(picker)) == ("文言文", states["文言文"], "文言文")
    assert picker.caption.text == "chosen: 文言文 · 3 listed"
    click(picker, "emoji")
    assert (picker.name, picker.state, says(picker)) == ("emoji", states["emoji"], "chosen: emoji")
    click(picker, "zero (no state)")
    assert (picker.name, picker.state, says(picker)) == ("", None, "chosen: zero (no state)")
    assert seen == [states["emoji"], None]
    assert listed(picker)[0] == "zero (no state)" and chosen(picker) == "zero (no state)"


def test_what_is_set_from_python_is_shown(states, random_state):
    picker = StatePicker(states)
    picker.name = "emoji"
    assert (picker.state, chosen(picker), says(picker)) == (states["emoji"], "emoji", "chosen: emoji")
    own = random_state("mine", 9)
    picker.state = own
    assert (picker.name, picker.state, chosen(picker)) == ("", own, None)
    assert says(picker) == "chosen: mine (set from Python)"
    click(picker, "zero (no state)")
    assert picker.state is None and says(picker) == "chosen: zero (no state)"
    picker.name = "emoji"
    picker.state = None
    assert (picker.name, chosen(picker), says(picker)) == ("", "zero (no state)", "chosen: zero (no state)")


def test_the_filter_shortens_the_list_and_leaves_the_choice(states):
    picker = StatePicker(states, name="emoji")
    picker.filter = "文"
    assert listed(picker) == ["zero (no state)", "文言文"]
    assert (picker.name, chosen(picker)) == ("emoji", "emoji")
    assert picker.caption.text == "chosen: emoji · 1 of 3 listed"
    picker._words.value = " "
    assert picker.filter == " " and listed(picker)[1:] == list(states) and picker.state is states["emoji"]


def test_all_words_of_the_filter_must_be_said_of_a_row_as_in_find(tmp_path, states):
    names = ("rwkv-x070-chn_文言文QA-0.4B-20241114-ctx2048", "rwkv-x060-emoji-1B6-20250102-ctx2048")
    for name, state in zip(names, states.values(), strict=False):
        save_state(state, tmp_path / f"{name}.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    picker = StatePicker(tmp_path)
    for words in ("ｅｍｏｊｉ 1.6b", "RWKV-6", "x060", "20250102"):
        picker.filter = words
        assert listed(picker) == ["zero (no state)", *picker.shelf.find(words)] and len(listed(picker)) == 2, words
    picker.filter = "broken"  # find() knows what can be used only
    assert listed(picker) == ["zero (no state)", "broken"]


def test_columns_say_what_the_names_and_headers_say_and_empty_ones_are_left_out(tmp_path, states):
    name = "rwkv-x070-chn_文言文QA-0.4B-20241114-ctx2048"
    save_state(states["emoji"], tmp_path / f"{name}.pth")
    picker = StatePicker(tmp_path)
    columns = [column["name"] for column in picker.table.columns]
    row = dict(zip(columns, picker.table.rows[1]["cells"], strict=True))
    wanted = {"state": name, "purpose": "chn_文言文QA", "made for": "RWKV-7", "model": "0.4B", "L/H/N": "2/2/16"}
    assert {key: row[key] for key in wanted} == wanted
    assert row["date"] == "20241114" and float(row["MiB"]) > 0 and "note" not in columns
    few = StatePicker({"文言文": states["文言文"]})
    assert [column["name"] for column in few.table.columns] == ["state", "made for", "L/H/N", "MiB"]


def test_what_cannot_be_used_is_greyed_with_the_reason_and_cannot_be_chosen(folder, tiny):
    for picker in (StatePicker(folder, tiny), StatePicker(Shelf(folder), tiny)):
        assert listed(picker) == ["zero (no state)", "emoji", "文言文", "<script>", "three heads"]
        off = {row["cells"][0]: row["off"] for row in picker.table.rows}
        assert [name for name, why in off.items() if not why] == ["zero (no state)", "emoji", "文言文"]
        assert "H=3 (model 2)" in off["three heads"] and off["<script>"]
        assert picker.table.rows[-1]["brief"].startswith("H=3 (model 2)")
        assert "2 cannot be used" in picker.caption.text
        click(picker, "three heads")
        assert (picker.name, picker.state.card.name, chosen(picker)) == ("emoji", "emoji", "emoji")
        assert "three heads" in picker.caption.text and "H=3 (model 2)" in picker.caption.text
        assert picker.caption.trouble
        with pytest.raises(ArgError, match="three heads"):
            picker.name = "three heads"
        click(picker, "文言文")
        assert picker.name == "文言文" and not picker.caption.trouble


def test_a_mapping_is_held_to_the_model_too(states, tiny):
    picker = StatePicker(states | {"big": State(torch.ones(1, 1, 2, 2)), "three": 3}, tiny)
    assert set(picker.unusable) == {"big", "three"} and list(picker.sources) == list(states)
    click(picker, "three")
    assert picker.name == "文言文" and "no State but a int" in picker.caption.text


def test_a_file_that_goes_bad_is_said_greyed_and_changes_nothing(folder, tiny):
    picker = StatePicker(folder, tiny)
    before = picker.state
    (folder / "文言文.pth").write_bytes(b"gone bad")
    click(picker, "文言文")
    assert (picker.name, picker.state, chosen(picker)) == ("emoji", before, "emoji")
    assert "文言文" in picker.caption.text and "cannot be used" in picker.caption.text and picker.caption.trouble
    assert "文言文" in picker.unusable
    click(picker, "zero (no state)")
    assert picker.state is None


def test_refresh_shows_new_files_and_lets_gone_ones_go(folder, states, tiny):
    picker = StatePicker(folder, tiny, name="emoji")
    seen = []
    picker.observe(lambda change: seen.append(change["name"]), ["state", "name"])
    save_state(states["emoji"], folder / "new.safetensors")
    os.remove(folder / "three heads.pth")
    picker._refresh.click()
    assert listed(picker) == ["zero (no state)", "emoji", "new", "文言文", "<script>"]
    assert picker.name == "emoji" and seen == []
    assert chosen(picker) == "emoji"
    save_state(states["文言文"], folder / "emoji.pth")
    picker.refresh()
    assert torch.equal(picker.state.wkv, states["文言文"].wkv) and picker.name == "emoji" and seen == ["state"]
    os.remove(folder / "emoji.pth")
    kept = picker.state
    picker.refresh()
    assert (picker.name, picker.state, chosen(picker)) == ("", kept, None)
    assert "'emoji'" in picker.caption.text and "still chosen" in picker.caption.text
    shutil.rmtree(folder)
    picker.refresh()
    assert "no readable folder" in picker.caption.text and listed(picker)[1:3] == ["new", "文言文"]


def test_a_click_on_a_list_that_is_gone_is_ignored(folder, tiny):
    picker = StatePicker(folder, tiny)
    old = picker.table.version
    picker.refresh()
    click(picker, "文言文", version=old)
    assert picker.name == "emoji"
    for content in ({}, {"choose": 99}, {"choose": "1"}, {"choose": True, "version": picker.table.version}, [1]):
        picker.table._handle_custom_msg(content, [])
    assert picker.name == "emoji"


def test_a_folder_is_added_by_its_path_and_names_stay_apart(folder, states, tiny, tmp_path):
    more = tmp_path / "更多"
    more.mkdir()
    save_state(states["<b>x</b>"], more / "emoji.pth")
    save_state(states["<b>x</b>"], more / "third.pth")
    picker = StatePicker(folder, tiny)
    for wrong, why in (("", "type the path"), (str(tmp_path / "nowhere"), "no readable folder"), ("\0", "folder")):
        picker._path.value = wrong
        picker._add.click()
        assert why in picker.caption.text and picker.caption.trouble and picker.sources.folders == ()
    picker._path.value = str(more)
    picker._add.click()
    assert picker.caption.text.startswith("2 more from ") and not picker.caption.trouble and picker._path.value == ""
    assert listed(picker)[1:5] == ["emoji", "文言文", "更多/emoji.pth", "third"]
    click(picker, "更多/emoji.pth")
    assert torch.equal(picker.state.wkv, states["<b>x</b>"].wkv) and picker.name == "更多/emoji.pth"
    picker._path.value = str(more)
    picker._add.click()
    assert "is there already" in picker.caption.text
    again = StatePicker([folder, more], tiny)
    assert len(again.table.rows) == len(picker.table.rows)
    # a folder that is there under another path brings nothing twice
    (tmp_path / "link").symlink_to(folder)
    assert (
        StatePicker(folder, tiny, folders=[str(tmp_path / "link")]).sources.rows
        == StatePicker(folder).sources.rows[:0] + StatePicker(folder, tiny).sources.rows
    )


def test_the_code_makes_the_same_view(folder, states, tiny, tmp_path, random_state):
    import rwkvlab as lab

    shelf, model = Shelf(folder, tiny), tiny
    more = tmp_path / "b'\"\n"
    more.mkdir()
    save_state(states["emoji"], more / "third.pth")
    first = StatePicker(shelf, model, name="文言文", folders=[str(more)], filter="th", sort="-MiB")
    for picker in (first, StatePicker(str(folder), model, name=""), StatePicker([folder, str(more)], model)):
        again = eval(picker.code, {"lab": lab, "shelf": shelf, "model": model})
        assert again.code == picker.code and "\n" not in picker.code
        for one in ("name", "filter"):
            assert getattr(again, one) == getattr(picker, one)
        for one in ("rows", "shown", "chosen", "sort"):
            assert getattr(again.table, one) == getattr(picker.table, one)
    state = random_state("mine", 5)
    first.state = state
    again = eval(first.code, {"lab": lab, "shelf": shelf, "model": model, "state": state})
    assert again.state is state and again.name == ""


def test_names_are_shown_and_act_nowhere(random_state):
    picker = StatePicker({name: random_state(name) for name in HOSTILE})
    for name in HOSTILE:
        picker.name = name
        page = picker.caption.value + picker._repr_mimebundle_()["text/html"]
        assert not set(page) & set("\x1b\u202e") and "<img" not in page
        assert "mathjax_ignore" in picker.caption.value
    assert not any(set("".join(row["cells"])) & set("\x1b\u202e\n") for row in picker.table.rows)


def test_mistakes_are_named_and_change_nothing(states, tiny, tmp_path):
    picker = StatePicker(states, tiny)
    with pytest.raises(RwkvLabError, match="nope"):
        picker.name = "nope"
    with pytest.raises(MismatchError):
        picker.state = State(torch.ones(1, 1, 2, 2))
    assert (picker.name, picker.state) == ("文言文", states["文言文"])
    with pytest.raises(PathError):
        StatePicker(tmp_path / "nowhere")
    with pytest.raises(PathError):
        StatePicker(states, folders=[str(tmp_path / "nowhere")])
    with pytest.raises(ArgError, match="need a list of folders"):
        StatePicker(states, folders="nowhere")
    with pytest.raises(ArgError, match="StatePicker: need a Shelf"):
        StatePicker(3)
    with pytest.raises(RwkvLabError, match="nope"):
        StatePicker(states, name="nope")


def test_an_empty_shelf_offers_the_zero_state(tmp_path):
    picker = StatePicker(tmp_path)
    assert picker.state is None and listed(picker) == ["zero (no state)"] and picker.table.chosen == 0


def test_a_page_without_a_kernel_shows_the_table(folder, tiny):
    data = StatePicker(folder, tiny)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "文言文" in data["text/html"] and "&lt;script&gt;" in data["text/html"] and "H=3" in data["text/html"]


def test_two_thousand_states_are_filtered_within_a_second(random_state):
    state = random_state("one")
    picker = StatePicker({f"状态 {number}": state for number in range(2000)})
    start = time.monotonic()
    picker.filter = "1999"
    assert listed(picker) == ["zero (no state)", "状态 1999"]
    picker.filter = ""
    assert len(picker.table.shown) == 2001 and time.monotonic() - start < 2
