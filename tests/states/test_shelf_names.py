"""A state is found by what its name says, and a name that is none is answered with those that come near."""

import os
import subprocess
import sys

import pytest
import torch

from rwkvlab.errors import ArgError, UnknownNameError
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.shelf_files import Slot
from rwkvlab.states.shelf_names import Names
from rwkvlab.states.state import State


@pytest.fixture
def shelf(tmp_path):
    names = ("rwkv-x070-chn_文言文-0.1B-20241114-ctx2048", "rwkv-x060-eng_%E5%B0%8F%E8%AF%B4-3B", "emoji", "bad")
    for name in names:
        save_state(State(torch.ones(1, 1, 2, 2)), tmp_path / f"{name}.pth")
    for suffix in ("pth", "state"):
        save_state(State(torch.ones(1, 1, 2, 2)), tmp_path / f"a.{suffix}")
    return Shelf(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("小说", "rwkv-x060-eng_%E5%B0%8F%E8%AF%B4-3B"),
        ("文言文 0.1b", "rwkv-x070-chn_文言文-0.1B-20241114-ctx2048"),
        ("  0.1B\t文言文 ", "rwkv-x070-chn_文言文-0.1B-20241114-ctx2048"),
        ("rwkv-7 2048", "rwkv-x070-chn_文言文-0.1B-20241114-ctx2048"),
        ("RWKV-6", "rwkv-x060-eng_%E5%B0%8F%E8%AF%B4-3B"),
        ("20241114", "rwkv-x070-chn_文言文-0.1B-20241114-ctx2048"),
        ("文言文 3b", None),
    ],
)
def test_every_word_is_looked_for_in_all_that_the_table_shows(shelf, text, found):
    assert shelf.find(text) == ([found] if found else [])


@pytest.mark.parametrize("odd", [None, 5, b"a", ["a"]])
def test_what_is_no_text_is_not_looked_for(shelf, odd):
    with pytest.raises(ArgError, match="find: need a text, got"):
        shelf.find(odd)
    assert shelf.find("") == list(shelf)


def test_names_that_differ_by_their_suffix_alone_are_named_first(shelf):
    with pytest.raises(UnknownNameError, match=r"did you mean 'a\.pth', 'a\.state'\?"):
        shelf["a"]
    with pytest.raises(UnknownNameError, match=r"did you mean 'emoji'\?"):
        shelf["EMOJI"]


def test_names_are_found_in_one_that_never_changes():
    names = Names({"e\u0301": Slot("x"), "b": Slot("y", reason="bad")}, {"1-2": "b"})
    assert names.find("\xe9") == names.find("e\u0301") == "e\u0301" and names.find("1-2") == "b"
    assert names.find(None) is None and names.find("c") is None and names.usable() == ["e\u0301"]


CLOSED = """
import os, sys
from pathlib import Path
import tomlkit, torch
import rwkvlab as lab
from rwkvlab.states.state import State
root = Path(sys.argv[1])
lab.Shelf(root / "closed").table()  # what is imported late, this user can still read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def trouble(call):
    try:
        call()
    except lab.RwkvLabError as error:
        return type(error).__name__
    return "none"
open_shelf = lab.Shelf(root / "listed")
print(trouble(lambda: lab.Shelf(root / "closed")))
print(sorted(open_shelf.unreadable), list(open_shelf), bool(repr(open_shelf)), len(open_shelf.table()))
print(trouble(lambda: open_shelf["a"]), trouble(lambda: open_shelf.path("a")), len(list(open_shelf.items())))
print(trouble(lambda: lab.read_ai00(root / "closed" / "Config.toml")))
config = root / "listed.toml"
print(len(lab.read_ai00(config)), trouble(lambda: lab.write_ai00({"a": State(torch.ones(1, 1, 2, 2))}, config)))
print(trouble(lambda: lab.write_ai00({"new": State(torch.ones(1, 1, 2, 2))}, config)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, for whom a folder is closed")
def test_folders_that_are_closed_give_errors_of_ours(tmp_path):
    state = State(torch.ones(1, 1, 2, 2))
    for name in ("closed", "listed"):
        (tmp_path / name).mkdir()
        save_state(state, tmp_path / name / "a.state")
        (tmp_path / name / "b.state").symlink_to("a.state")
        (tmp_path / name / "plain").write_bytes((tmp_path / name / "a.state").read_bytes())
    (tmp_path / "listed.toml").write_text('[model]\npath = "listed"\n[[state]]\npath = "a.state"\n')
    (tmp_path / "closed").chmod(0)
    (tmp_path / "listed").chmod(0o444)  # names can be seen, files not
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("test_", "pytest-", "popen-")):
            folder.chmod(0o755)
    out = subprocess.run(
        [sys.executable, "-c", CLOSED, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert out.stdout.splitlines() == [
        "PathError",
        "['a', 'b'] [] True 2",
        "UnknownNameError UnknownNameError 0",
        "PathError",
        "0 SaveError",
        "SaveError",
    ], out.stderr
