"""One damaged file costs its own state and no other: loops go on, and it is listed with the reason."""

import os
import threading
import warnings

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import FormatError, NonFiniteError, UnknownNameError
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_names import Names
from rwkvlab.states.state import State


@pytest.fixture
def folder(tmp_path, random_state):
    """Two good files, one with a bit flipped and one with a NaN, whose headers are all as they should be."""
    for seed, name in enumerate(("flipped", "good", "last"), 1):
        save_state(random_state(name, seed), tmp_path / f"{name}.pth")
    wkv = random_state("flipped", 1).wkv
    raw = bytearray((tmp_path / "flipped.pth").read_bytes())
    raw[raw.index(wkv[0].numpy().tobytes())] ^= 1
    (tmp_path / "flipped.pth").write_bytes(raw)
    broken = {f"blocks.{i}.att.time_state": layer.clone() for i, layer in enumerate(wkv)}
    broken["blocks.0.att.time_state"][0, 0, 0] = float("nan")
    torch.save(broken, tmp_path / "nan.pth")
    return tmp_path


def test_loops_leave_out_what_is_damaged_say_so_once_and_list_it(folder):
    shelf = Shelf(folder)
    assert len(shelf) == 4 and not shelf.unreadable
    with pytest.warns(UserWarning, match="is left out") as caught:
        states = dict(shelf.items())
    assert list(states) == list(shelf) == ["good", "last"] and len(shelf) == len(shelf.items()) == 2
    assert [str(one.message).split(" is left out")[0].split(": ")[-1] for one in caught] == ["'flipped'", "'nan'"]
    assert "CRC" in shelf.unreadable["flipped"] and "NaN" in shelf.unreadable["nan"]
    assert "2 states, 2 unreadable" in repr(shelf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(shelf.values())) == len({**shelf}) == len(list(shelf.items())) == 2
    with pytest.warns(UserWarning, match="is left out") as caught:
        assert len(list(Shelf(folder).values())) == 2
    assert len(caught) == 2 and all(one.filename == __file__ for one in caught)


@pytest.mark.parametrize(("name", "error"), [("flipped", FormatError), ("nan", NonFiniteError)])
def test_a_damaged_state_raises_and_is_listed_from_then_on(folder, name, error):
    shelf = Shelf(folder)
    assert name in shelf
    with pytest.raises(error):
        shelf[name]
    assert name not in shelf and name not in list(shelf) and shelf.unreadable[name]
    with pytest.raises(UnknownNameError, match="cannot be used"):
        shelf[name]
    assert name in shelf.refresh().unreadable  # the file is as it was
    os.replace(folder / "good.pth", folder / f"{name}.pth")
    assert name in shelf.refresh() and shelf[name].card.name == name


def test_a_path_that_was_in_trouble_is_looked_at_again(folder):
    shelf = Shelf(folder)
    os.rename(folder / "good.pth", folder / "away")
    with pytest.warns(UserWarning, match="is left out") as caught:
        assert [name for name, _ in shelf.items()] == ["last"]
    assert any("'good' is left out" in str(one.message) and "no such file" in str(one.message) for one in caught)
    os.rename(folder / "away", folder / "good.pth")
    assert "good" not in shelf and "good" in shelf.refresh()


def test_a_comparison_goes_on_without_what_is_damaged(folder, tiny):
    with pytest.warns(UserWarning, match="is left out"):
        compared = lab.compare(tiny, ["a"], Shelf(folder, tiny), template="raw", max_tokens=1, temperature=0)
    assert list(compared.table["state"].unique()) == ["zero", "good", "last"]


def test_a_refresh_between_the_name_and_its_file_changes_neither(folder, monkeypatch):
    shelf, find = Shelf(folder), Names.find

    def find_and_refresh(names, name):
        found = find(names, name)
        (folder / "good.pth").unlink(missing_ok=True)
        shelf.refresh()
        return found

    monkeypatch.setattr(Names, "find", find_and_refresh)
    assert shelf.path("good").name == "good.pth" and "good" not in list(shelf)
    shelf = Shelf(folder)
    (folder / "last.pth").rename(folder / "good.pth")
    assert "good" not in shelf and "good" not in shelf
    with pytest.raises(UnknownNameError, match="no state 'good'"):
        shelf["good"]


def test_threads_share_a_shelf_while_it_is_refreshed(tmp_path):
    for i in range(6):
        save_state(State(torch.ones(1, 1, 2, 2)), tmp_path / f"e\u0301 {i}.pth")
    shelf, odd, done = Shelf(tmp_path), [], threading.Event()

    def ask():
        try:
            while not done.is_set():
                for i in range(6):
                    for name in (f"e\u0301 {i}", f"\xe9 {i}"):
                        if name in shelf:
                            shelf.path(name)
                    shelf.get("\xe9 0"), repr(shelf), shelf.find("0"), shelf.unreadable
        except UnknownNameError:
            pass
        except Exception as error:
            odd.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        os.rename(tmp_path / "e\u0301 5.pth", tmp_path / "f.pth")
        shelf.refresh()
        os.rename(tmp_path / "f.pth", tmp_path / "e\u0301 5.pth")
        shelf.refresh()
    done.set()
    for thread in threads:
        thread.join()
    assert not odd
