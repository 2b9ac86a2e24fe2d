"""Which files are on a shelf, and that no two have the same name."""

import json
import os

import pytest
import torch

from rwkvlab.errors import PathError, UnknownNameError
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_files import name_files
from rwkvlab.states.state import State


def wkv(value=1.0, layers=2):
    return torch.full((layers, 1, 2, 2), float(value))


def put(folder, *names):
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names, 1):
        suffix = os.path.splitext(name)[1]
        safe = folder / f"tmp{suffix if suffix in ('.pth', '.state', '.safetensors') else '.pth'}"
        save_state(State(wkv(value)), safe)
        os.rename(safe, folder / name)
    return folder


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["d/a.pth", "d/b.state"], ["a", "b"]),
        (["d/a.pth", "d/a.state"], ["a.pth", "a.state"]),
        (["d/a.pth", "d/a.state", "d/a.pth.state"], ["a.pth", "a.state", "a.pth.state"]),
        (["d/a.pth", "d/a.pth.pth", "d/a.state", "d/a.pth.state"], ["a.pth", "a.pth.pth", "a.state", "a.pth.state"]),
        (["d/a", "d/a.pth"], ["a", "a.pth"]),
        (["d/A.PTH", "d/a.pth"], ["A", "a"]),
        (["d/a.pth", "e/a.pth"], ["d/a.pth", "e/a.pth"]),
        (["d/a.pth", "e/a.state"], ["a.pth", "a.state"]),
        (["x/d/a.pth", "y/d/a.pth", "y/d/b.pth"], ["x/d/a.pth", "y/d/a.pth", "b"]),
        (["d/a.tar.gz", "d/.pth.pth", "d/x."], ["a.tar.gz", ".pth", "x."]),
    ],
)
def test_names_tell_files_apart(paths, names):
    found = name_files(paths)
    assert len(set(found)) == len(paths)
    if names[0] != "a" or names[1] != "a.pth":
        assert found == names


def test_every_file_is_found_under_its_name_whatever_the_others_are_called(tmp_path):
    names = ["a.pth", "a.state", "a.pth.state", "A.pth", "a.safetensors", "a.pth.pth"]
    shelf = Shelf(put(tmp_path, *names))
    assert len(shelf) == len(names) and not shelf.unreadable
    for value, name in enumerate(names, 1):
        key = next(key for key in shelf if shelf.path(key).name == name)
        assert shelf[key].wkv[0, 0, 0, 0] == value


def test_twins_of_another_composition_are_two_and_a_third_spelling_is_refused(tmp_path):
    one, two, third = "\u1ec7", "e\u0323\u0302", "\u1eb9\u0302"
    shelf = Shelf(put(tmp_path, f"{one}.pth", f"{two}.pth"))
    assert sorted(shelf) == sorted([one, two])
    assert (shelf[one].wkv[0, 0, 0, 0], shelf[two].wkv[0, 0, 0, 0]) == (1, 2)
    assert third not in shelf and shelf.get(third) is None
    with pytest.raises(UnknownNameError) as caught:
        shelf[third]
    for point in ("U+1EC7", "U+0323 U+0302", "U+1EB9 U+0302", "list(shelf)"):
        assert point in str(caught.value)
    assert "looks like another name: U+1EC7 here" in repr(shelf)


def test_another_composition_finds_the_only_file_that_it_can_mean(tmp_path):
    shelf = Shelf(put(tmp_path, "Cafe\u0301.pth", "ab.pth"))
    assert "Caf\u00e9" in shelf
    assert shelf["Caf\u00e9"].card.name == "Cafe\u0301"
    for other in ("CAF\u00c9", "AB", "ａｂ"):
        with pytest.raises(UnknownNameError, match="did you mean"):
            shelf[other]


def test_several_folders_are_one_shelf(tmp_path):
    put(tmp_path / "one", "a.pth", "b.pth")
    put(tmp_path / "two", "a.pth", "c.state")
    folders = [tmp_path / "one", str(tmp_path / "two"), tmp_path / "two" / ".." / "one"]
    shelf = Shelf(folders)
    assert sorted(shelf) == ["b", "c", "one/a.pth", "two/a.pth"]
    assert shelf["two/a.pth"].card.name == "two/a.pth"
    with pytest.raises(PathError, match="no readable folder"):
        Shelf([tmp_path / "one", tmp_path / "none"])
    for odd in ([], 5, None, ["x\0y"]):
        with pytest.raises(PathError):
            Shelf(odd)


def test_renamed_states_are_found_by_their_content(tmp_path):
    put(tmp_path, "plain", "old.pth.bak", "copy.bin", "x.pt", "full.safetensors.1")
    os.rename(tmp_path / "full.safetensors.1", tmp_path / "tensors.dat")
    assert sorted(Shelf(tmp_path)) == ["copy.bin", "old.pth.bak", "plain", "tensors.dat", "x.pt"]


def test_files_that_are_not_states_by_name_or_content_are_left_out(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "report.docx", "w") as archive:
        archive.writestr("word/document.xml", "x")
    (tmp_path / "package.json").write_text('{"name": "x", "version": "1"}')
    (tmp_path / "config.json").write_text('{"data": [1, 2], "hidden_size": 4}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "README.md").write_text("# states")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "sub.pth.d").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".tmp-rwkvlab-1.pth").write_bytes(b"torn")
    shelf = Shelf(tmp_path)
    assert not shelf._names.slots and "0 states" in repr(shelf)


def answer(**more):
    item = {"data": [float(i) for i in range(2 * 4 * 1)], "shape": [2, 4, 1, 1]}
    return json.dumps({"object": "list", "data": [item | more], "model": "RWKV-x060-World-3B"})


def test_answers_of_ai00_are_states_and_other_json_is_not(tmp_path):
    (tmp_path / "mine.json").write_text(answer())
    (tmp_path / "short.json").write_text('{"data": [1.0, 2.0], "shape": [2, 4, 1, 1]}')
    (tmp_path / "named.state").write_text(answer())
    shelf = Shelf(tmp_path)
    assert sorted(shelf) == ["mine", "named"]
    assert shelf["mine"].has_shifts and shelf["mine"].wkv.shape == (1, 1, 2, 2)
    assert "needs 8 numbers" in shelf.unreadable["short"]


def test_links_are_followed_and_those_that_leave_the_folder_say_so(tmp_path):
    put(tmp_path / "blobs", "abc123.pth")
    os.rename(tmp_path / "blobs" / "abc123.pth", tmp_path / "blobs" / "abc123")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "state.pth").symlink_to("../blobs/abc123")
    (tmp_path / "snapshot" / "same.pth").symlink_to("state.pth")
    (tmp_path / "snapshot" / "gone.pth").symlink_to("nowhere")
    (tmp_path / "snapshot" / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "snapshot" / "zero.pth").symlink_to("/dev/zero")
    shelf = Shelf(tmp_path / "snapshot")
    assert sorted(shelf) == ["same", "state"] and shelf["state"].wkv.shape == (2, 1, 2, 2)
    notes = shelf.table().set_index("name")["note"]
    assert notes["state"].startswith("a link out of its folder") or "a link out of its folder" in notes["state"]
    for name, words in (("gone", "does not exist"), ("loop", "back to itself"), ("zero", "a device")):
        assert words in shelf.unreadable[name]


def test_a_refresh_sees_what_came_what_went_and_what_changed(tmp_path):
    put(tmp_path, "a.pth", "b.pth")
    shelf = Shelf(tmp_path)
    shelf.default = "b"
    kept = shelf._names.slots["a"]
    put(tmp_path, "c.pth")
    (tmp_path / "b.pth").write_bytes(b"<html>")
    assert list(shelf) == ["a", "b"]
    assert shelf.refresh() is shelf
    assert list(shelf) == ["a", "c"] and "HTML" in shelf.unreadable["b"]
    assert shelf.default is None and shelf.table().set_index("name")["note"]["b"] == "the default"
    assert shelf._names.slots["a"] is kept  # its header was not read again
    (tmp_path / "b.pth").unlink()
    assert shelf.refresh().default is None and shelf.title == str(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    tmp_path.rmdir()
    with pytest.raises(PathError, match="no readable folder"):
        shelf.refresh()
    assert list(shelf) == ["a", "c"]
    tmp_path.mkdir()


def test_a_file_that_may_be_read_again_is(tmp_path):
    put(tmp_path, "a.pth")
    shelf = Shelf(tmp_path)
    (tmp_path / "a.pth").rename(tmp_path / "b.pth")
    with pytest.raises(PathError, match="no such file"):
        shelf["a"]
    assert list(shelf.refresh()) == ["b"]
