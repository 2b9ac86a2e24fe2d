"""Ai00's config: entries are read, mistakes are placed, and adding entries leaves every other line alone."""

import os
import time
import tomllib

import pytest
import torch

from rwkvlab.errors import ConfigError, PathError, SaveError
from rwkvlab.states.ai00 import read_ai00, write_ai00
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State

ONE, TWO = "fd7a60ed-7807-449f-8256-bccae3246222", "6a9c9c3c-5ba2-4b34-8d4f-1a3f2a1b7a10"
CONFIG = f"""# 配置 = my settings
[model]
embed_device = "Cpu"          # keep
name = "RWKV-x060-World-3B-v2.st"
path = "assets/models"

[[state]] # the first
id = "{ONE.upper()}"
name = "文言文"
path = "states/wenyan.state"
default = true

[[state]]
path = 'emoji.state'

[listen]
port = 65530
"""


def wkv(value=1.0):
    return torch.arange(8.0).view(2, 1, 2, 2) * value


@pytest.fixture
def config(tmp_path):
    models = tmp_path / "assets" / "models"
    (models / "states").mkdir(parents=True)
    (tmp_path / "assets" / "configs").mkdir()
    save_state(State(wkv()), models / "states" / "wenyan.state")
    save_state(State(wkv(2)), models / "emoji.state")
    path = tmp_path / "assets" / "configs" / "Config.toml"
    path.write_text(CONFIG, "utf-8")
    return path


def test_entries_are_states_by_name_and_by_id(config):
    shelf = read_ai00(config)
    assert list(shelf) == ["文言文", "emoji"]
    assert torch.equal(shelf["文言文"].wkv, wkv())
    for ident in (ONE, ONE.upper()):
        assert torch.equal(shelf[ident].wkv, wkv())
        assert ident in shelf
    assert shelf[ONE].card.name == "文言文"
    assert shelf.default == "文言文"


def test_files_that_are_missing_or_bad_or_outside_are_listed(config, tmp_path):
    save_state(State(wkv()), tmp_path / "outside.state")
    models = tmp_path / "assets" / "models"
    (models / "link.state").symlink_to(tmp_path / "outside.state")
    (models / "inside.state").symlink_to("emoji.state")
    (models / "page.state").write_bytes(b"<html>")
    more = "".join(f'[[state]]\npath = "{name}.state"\n' for name in ("gone", "link", "inside", "page", "emoji"))
    config.write_text(CONFIG + more, "utf-8")
    shelf = read_ai00(config)
    assert list(shelf) == ["文言文", "emoji", "inside", "emoji (2)"]
    for name, words in (("gone", "no such file"), ("link", "link out of the folder"), ("page", "HTML")):
        assert words in shelf.unreadable[name]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('path = "../secret.state"', r"state\[0\]\.path.*leaves the folder"),
        ('path = "a/../../b"', r"state\[0\]\.path"),
        ('path = "/etc/passwd"', "leaves the folder"),
        ("path = 'C:\\x.state'", "leaves the folder"),
        ("path = '\\\\host\\share'", "leaves the folder"),
        ('path = "~/x.state"', "holds '~'"),
        ('path = "$HOME/x"', r"holds '\$'"),
        ('path = "https://x/y.state"', "holds '://'"),
        ('path = "*.state"', "holds '\\*'"),
        ('path = "cat x|"', "holds"),
        ('path = "a\\u0000b"', "holds"),
        ('path = ""', "is empty"),
        ("path = 5", r"state\[0\]\.path: need text"),
        ('name = "x"', r"state\[0\]\.path: missing"),
        ('path = "a"\nid = "not-a-uuid"', r"state\[0\]\.id: need a UUID"),
        ('path = "a"\nid = 5', r"state\[0\]\.id: need text"),
        ('path = "a"\ndefault = "yes"', r"state\[0\]\.default: need true or false"),
    ],
)
def test_an_entry_that_is_wrong_is_placed(config, entry, words):
    config.write_text(f"[model]\npath = 'models'\n[[state]]\n{entry}\n")
    with pytest.raises(ConfigError, match=words) as caught:
        read_ai00(config)
    assert "'Config.toml'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f'[[state]]\npath="a"\nid="{ONE}"\n[[state]]\npath="b"\nid="{ONE.upper()}"',
            r"state\[0\]\.id and state\[1\]\.id",
        ),
        ('[[state]]\npath="a"\ndefault=true\n[[state]]\npath="b"\ndefault=true', r"state\[1\]\.default"),
        ('[state]\npath="a"', r"\[\[state\]\]"),
        ('state = "a"', r"\[\[state\]\]"),
        ("state = [1]", r"\[\[state\]\]"),
        ("model = 5", r"model\.path"),
        ("[model]\npath = 5", r"model\.path"),
        ("model:\n  path: x", "not TOML.*line 1"),
        ('[model]\npath="a"\npath="b"', "not TOML"),
        ("x = " + "[" * 2000 + "]" * 2000, "nested"),
        ("x = " + "9" * 5000, "number too long|not TOML"),
        (".".join(["a"] * 20_000) + " = 1", "line 1: nested"),
        ("#" * (2 << 20), "at most"),
        ("\ud83d", "not UTF-8"),
    ],
    ids=range(14),
)
def test_a_config_that_is_wrong_is_refused_at_once(config, text, words):
    config.write_bytes(text.encode("utf-16-le" if text == "\ud83d" else "utf-8", "surrogatepass"))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=words):
        read_ai00(config)
    assert time.perf_counter() - start < 2


def test_other_encodings_are_told_from_utf8(config):
    config.write_bytes(CONFIG.encode("gbk"))
    with pytest.raises(ConfigError, match=r"not UTF-8 at byte .*save it as UTF-8"):
        read_ai00(config)
    config.write_bytes(b"\xef\xbb\xbf" + CONFIG.encode())
    assert list(read_ai00(config)) == ["文言文", "emoji"]


def test_a_config_or_model_folder_that_is_missing_is_a_path_error(config):
    with pytest.raises(PathError, match="no such file"):
        read_ai00(config.parent / "none.toml")
    config.write_text("[model]\npath = 'nowhere'")
    with pytest.raises(PathError, match=r"model\.path.*'nowhere'"):
        read_ai00(config)


def test_unknown_fields_warn(config):
    config.write_text(CONFIG + '[[state]]\npath="emoji.state"\nname="x"\ncolour="red"\n', "utf-8")
    with pytest.warns(UserWarning, match="'colour'"):
        assert "x" in read_ai00(config)


def test_new_entries_are_added_and_every_other_line_stays(config, tmp_path):
    before = config.read_text("utf-8")
    config.chmod(0o640)
    blend = 0.5 * State(wkv())
    assert write_ai00({"半 half": blend, "plain": State(wkv(4))}, config) == config
    after = config.read_text("utf-8")
    lines = iter(after.splitlines())
    assert all(line in lines for line in before.splitlines())
    assert config.stat().st_mode & 0o777 == 0o640
    entries = tomllib.loads(after)["state"]
    assert [entry.get("name") for entry in entries] == ["文言文", None, "半 half", "plain"]
    assert len({entry["id"] for entry in entries if "id" in entry}) == 3
    shelf = read_ai00(config)
    assert torch.equal(shelf["半 half"].wkv, 0.5 * wkv())
    assert "Ai00" in shelf["plain"].card.source
    assert tomllib.loads(after)["listen"]["port"] == 65530


def test_writing_the_same_shelf_twice_adds_nothing(config, tmp_path):
    new = {"plain": State(wkv())}
    write_ai00(new, config)
    once = config.read_bytes()
    write_ai00(new, config)
    write_ai00(read_ai00(config), config)
    assert config.read_bytes() == once


def test_a_state_in_the_model_folder_is_entered_where_it_is(config, tmp_path):
    models = tmp_path / "assets" / "models"
    save_state(State(wkv(3)), models / "third.state")
    save_state(State(wkv(4)), models / "fourth.pth")
    files = set(os.listdir(models))
    write_ai00(Shelf(models), config)
    assert set(os.listdir(models)) == files | {"fourth.state"}
    assert torch.equal(read_ai00(config)["fourth"].wkv, wkv(4))
    assert 'path = "third.state"' in config.read_text("utf-8")


def test_what_cannot_be_added_leaves_the_config_as_it_was(config, tmp_path):
    before = config.read_bytes()
    shifted = State(wkv(), att_shift=torch.ones(2, 2))
    (tmp_path / "assets" / "models" / "taken.state").write_bytes(b"something")
    for new, error, words in (
        ({"shifted": shifted}, SaveError, "token-shifts"),
        ({"taken": State(wkv())}, SaveError, "there already"),
        ({"fresh": State(wkv()), "../up": State(wkv())}, PathError, "file name"),
        ({"文言文": State(wkv())}, ConfigError, "of this name"),
    ):
        with pytest.raises(error, match=words):
            write_ai00(new, config)
        assert config.read_bytes() == before


def test_a_state_with_new_values_is_not_dropped_silently(config):
    state = State(wkv())
    write_ai00({"fresh": state}, config)
    write_ai00({"fresh": state}, config)
    with pytest.raises(SaveError, match=r"'fresh'.*is there with other values"):
        write_ai00({"fresh": State(wkv(2.0))}, config)


def test_a_name_with_ai00_in_it_does_not_make_a_state_of_ai00(config, tmp_path):
    folder = tmp_path / "assets" / "models"
    save_state(State(wkv()), folder / "Ai00-mine.pth")
    write_ai00(Shelf.of("one", {"Ai00-mine": folder / "Ai00-mine.pth"}), config)
    assert 'path = "Ai00-mine.state"' in config.read_text("utf-8")
