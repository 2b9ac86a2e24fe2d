"""A shelf lists a folder without opening states, and what is bad on it does not spoil the rest."""

import os
from types import SimpleNamespace

import pytest
import torch

from rwkvlab.errors import MismatchError, NonFiniteError, PathError, UnknownNameError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.tensorfile import TensorFile


def wkv(value=1.0, layers=2):
    return torch.full((layers, 1, 2, 2), float(value))


@pytest.fixture
def folder(tmp_path):
    for name in ("文言文QA.pth", "emoji.state", "full.safetensors", "twin.pth", "twin.state"):
        save_state(State(wkv(len(name))), tmp_path / name)
    (tmp_path / "page.pth").write_bytes(b"<html>")
    (tmp_path / "empty.state").write_bytes(b"")
    torch.save({"emb.weight": torch.ones(2)}, tmp_path / "model.pth")
    os.mkfifo(tmp_path / "pipe.st")
    (tmp_path / "notes.txt").write_text("not a state")
    (tmp_path / ".hidden.pth").write_text("not a state")
    return tmp_path


def test_a_shelf_is_a_mapping_of_names_to_states(folder):
    shelf = Shelf(folder)
    assert sorted(shelf) == ["emoji", "full", "twin.pth", "twin.state", "文言文QA"]
    assert len(shelf) == 5
    assert "emoji" in shelf
    assert "page" not in shelf
    assert shelf["emoji"].wkv[0, 0, 0, 0] == len("emoji.state")
    assert shelf["twin.pth"].card.name == "twin.pth"
    assert all(state.card.name == name for name, state in shelf.items())
    assert shelf.get("none") is None


def test_what_cannot_be_read_is_listed_with_the_reason(folder):
    reasons = Shelf(folder).unreadable
    assert set(reasons) == {"page", "empty", "model", "pipe"}
    for name, words in (("page", "HTML"), ("empty", "empty"), ("model", "load_model"), ("pipe", "named pipe")):
        assert words in reasons[name]


def test_listing_reads_no_tensor(folder, monkeypatch):
    monkeypatch.setattr(TensorFile, "read", None)
    shelf = Shelf(folder)
    assert len(shelf) == 5
    assert "5 states" in repr(shelf)
    assert "文言文QA" in shelf._repr_html_()
    assert "4 unreadable" in shelf._repr_html_()


def test_a_run_time_list_is_on_the_shelf_of_a_model_that_tells_its_order(tmp_path):
    matrices = torch.arange(4.0).view(1, 2, 2)
    torch.save([torch.ones(2), matrices, torch.ones(2)], tmp_path / "dump.pth")
    assert "pass model=" in Shelf(tmp_path).unreadable["dump"]
    model = SimpleNamespace(dims=Dims("x060", 1, 1, 2, 2, 2, 8, 9), card=ModelCard("m", "x060", "ab" * 32))
    assert torch.equal(Shelf(tmp_path, model)["dump"].wkv[0], matrices.mT)


def test_find_does_not_mind_case_width_or_composition(folder):
    save_state(State(wkv()), folder / "Cafe\u0301.pth")
    shelf = Shelf(folder)
    assert shelf.find("文言文") == ["文言文QA"]
    assert shelf.find("ＱＡ") == ["文言文QA"]
    assert shelf.find("EMO") == ["emoji"]
    assert shelf.find("caf\u00e9") == ["Cafe\u0301"]
    assert shelf.find("nothing") == []


def test_an_unknown_name_is_a_key_error_with_the_names_that_come_near(folder):
    shelf = Shelf(folder)
    with pytest.raises(KeyError) as caught:
        shelf["emojy"]
    assert isinstance(caught.value, UnknownNameError)
    assert "did you mean 'emoji'?" in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"cannot be used.*HTML"):
        shelf["page"]
    for odd in (5, None, ("a",)):
        assert odd not in shelf
        with pytest.raises(UnknownNameError):
            shelf[odd]


def test_with_a_model_what_does_not_fit_is_unreadable(folder):
    dims = Dims("x070", L=2, H=1, C=2, K=2, V=2, ffn=8, vocab=5)
    model = SimpleNamespace(dims=dims, card=ModelCard("m", "x070", ""))
    save_state(State(wkv(layers=3)), folder / "tall.pth")
    shelf = Shelf(folder, model)
    assert "L=3 (model 2)" in shelf.unreadable["tall"]
    assert shelf["emoji"].wkv.shape == (2, 1, 2, 2)
    save_state(State(wkv(layers=3)), folder / "emoji.state")
    with pytest.raises(MismatchError, match="L=3"):
        shelf["emoji"]


def test_what_only_the_numbers_show_is_told_when_they_are_read(folder):
    bad = {f"blocks.{i}.att.time_state": torch.full((1, 2, 2), float("nan")) for i in range(2)}
    torch.save(bad, folder / "bad.pth")
    with pytest.raises(NonFiniteError, match=r"'bad\.pth'"):
        Shelf(folder)["bad"]


def test_a_name_that_is_not_utf8_is_listed(tmp_path):
    save_state(State(wkv()), tmp_path / "a.pth")
    os.rename(tmp_path / "a.pth", os.fsencode(tmp_path) + b"/\xff\xfe.pth")
    shelf = Shelf(tmp_path)
    assert [state.wkv.shape for state in shelf.values()] == [(2, 1, 2, 2)]
    assert all(line.isprintable() for line in repr(shelf).split("\n"))
    assert "\\udcff\\udcfe" in repr(shelf) and shelf._repr_html_().encode()
    assert shelf.table().to_csv().encode() and shelf.find("x") == []
    assert shelf[next(iter(shelf))].card.name == os.fsdecode(b"\xff\xfe")


def test_a_folder_that_is_none_is_a_path_error(tmp_path):
    for wrong in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(PathError, match="no readable folder"):
            Shelf(wrong)
    assert len(Shelf(tmp_path)) == 0


def test_names_are_offered_for_completion(folder):
    assert "emoji" in Shelf(folder)._ipython_key_completions_()
