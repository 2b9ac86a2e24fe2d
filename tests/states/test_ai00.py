"""Ai00's config: entries are read, mistakes are placed, and adding entries leaves every other line alone."""

import json
import os
import pickle
import re
import time
import uuid

import pytest
import torch

from rwkvlab.errors import ArgError, ConfigError, PathError, SaveError
from rwkvlab.states.ai00 import read_ai00, write_ai00
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.tensorfile import TensorFile

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


@pytest.mark.parametrize("written", [ONE, ONE.upper(), ONE.replace("-", ""), f"{{{ONE}}}", f"urn:uuid:{ONE}"])
def test_an_id_is_found_in_every_spelling(config, written):
    config.write_text(CONFIG.replace(ONE.upper(), written), "utf-8")
    shelf = read_ai00(config)
    for ident in (ONE, ONE.upper(), ONE.replace("-", ""), f"{{{ONE}}}", f"urn:uuid:{ONE}", uuid.UUID(ONE)):
        assert ident in shelf and shelf[ident].card.name == "文言文" and shelf.path(ident).name == "wenyan.state"
    assert uuid.UUID(TWO) not in shelf


@pytest.mark.parametrize("first", [True, False])
def test_a_name_that_is_the_id_of_another_entry_does_not_win_over_it(config, first):
    bad, own = "[[state]]\npath = 'emoji.state'\nname = '{}'\n", f"id = '{TWO}'\n"
    entries = bad.format(ONE.replace("-", "").upper()) + bad.format(TWO) + own
    config.write_text(entries + CONFIG if first else CONFIG + entries, "utf-8")
    shelf = read_ai00(config)
    ((name, reason),) = shelf.unreadable.items()
    assert re.fullmatch(r"state\[\d\]", name) and re.search(r"state\[\d\]\.name: .* is the id of state\[\d\]; ", reason)
    assert shelf[ONE].card.name == "文言文" and shelf[TWO].card.name == TWO


def test_the_default_is_a_key_or_none(config):
    shelf = read_ai00(config)
    (config.parents[1] / "models" / "states" / "wenyan.state").unlink()
    assert shelf.refresh().default is None and "the default" in repr(shelf)
    with pytest.raises(KeyError, match="cannot be used"):
        shelf.default = "文言文"
    with pytest.raises(KeyError, match="did you mean 'emoji'"):
        shelf.default = "emojy"
    shelf.default = "emoji"
    assert shelf.default == "emoji"
    save_state(State(wkv()), config.parents[1] / "models" / "states" / "wenyan.state")
    assert shelf.refresh().default == "文言文"


def test_what_ai00_itself_could_not_mount_is_noted(config):
    models = config.parents[1] / "models"
    save_state(State(wkv()), models / "tuned.pth")
    save_state(State(wkv()), models / "own.safetensors")
    config.write_text(CONFIG + "".join(f"[[state]]\npath = '{p}'\n" for p in ("tuned.pth", "own.safetensors")), "utf-8")
    notes = read_ai00(config).table().set_index("name")["note"]
    for name, odd in (("tuned", True), ("own", True), ("emoji", False), ("文言文", False)):
        assert ("Ai00 takes only .st/.state in fp16" in notes[name]) == odd


def test_a_config_for_a_model_of_another_architecture_is_told(config, tiny, recwarn):
    with pytest.warns(UserWarning, match=r"'Config\.toml': is for 'RWKV-x060-.*', RWKV-6; the model is RWKV-7"):
        shelf = read_ai00(config, tiny)
    with pytest.warns(UserWarning, match="is for"):
        shelf.refresh()
    recwarn.clear()
    shelf.for_model(None)
    config.write_text(CONFIG.replace("RWKV-x060-World", "rwkv7-g1"), "utf-8")
    read_ai00(config, tiny)
    assert not recwarn.list


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


BAD_ENTRIES = [
    ('path = "../secret.state"', r"state\[2\]\.path.*leaves the folder"),
    ('path = "a/../../b"', r"state\[2\]\.path"),
    ("path = 'a\\..\\..\\b'", r"state\[2\]\.path"),
    ('path = "/etc/passwd"', "leaves the folder"),
    ("path = 'C:\\x.state'", "leaves the folder"),
    ("path = '\\\\host\\share'", "leaves the folder"),
    ('path = "~/x.state"', "holds '~'"),
    ('path = "$HOME/x"', r"holds '\$'"),
    ('path = "https://x/y.state"', "holds '://'"),
    ('path = "file:///etc/passwd"', "holds"),
    ('path = "*.state"', "holds '\\*'"),
    ('path = "cat x|"', "holds"),
    ('path = "a\\u0000b"', "holds"),
    ('path = "a\\u001bb"', "holds"),
    ('path = ""', "is empty"),
    ("path = 5", r"state\[2\]\.path: need text"),
    ('path = ["a"]', r"state\[2\]\.path: need text"),
    ('name = "x"', r"state\[2\]\.path: missing"),
    ('path = "emoji.state"\nname = 5', r"state\[2\]\.name: need text"),
    ('path = "emoji.state"\nname = ["x"]', r"state\[2\]\.name: need text"),
    ('path = "emoji.state"\nid = "not-a-uuid"', r"state\[2\]\.id: need a UUID"),
    ('path = "emoji.state"\nid = "1234"', r"state\[2\]\.id: need a UUID"),
    ('path = "emoji.state"\nid = ""', r"state\[2\]\.id: need a UUID, got ''"),
    ('path = "emoji.state"\nid = "1234567812345678123456781234_678"', r"state\[2\]\.id: need a UUID"),
    (f'path = "emoji.state"\nname = "{ONE}"', r"state\[2\]\.name: .* is the id of state\[0\]; rename this one"),
    ('path = "emoji.state"\nid = "\\u001b[2J"', r"state\[2\]\.id: need a UUID"),
    ('path = "emoji.state"\nid = 5', r"state\[2\]\.id: need text"),
    ('path = "emoji.state"\nid = 1979-05-27', r"state\[2\]\.id: need text"),
    ('path = "emoji.state"\ndefault = "yes"', r"state\[2\]\.default: need true or false"),
    ('path = "emoji.state"\ndefault = 1', r"state\[2\]\.default: need true or false"),
    (f'path = "emoji.state"\nid = "{ONE}"', r"state\[2\]\.id: .* is that of state\[0\], '文言文'"),
    (f'path = "emoji.state"\nid = "{ONE.upper()}"', r"state\[2\]\.id: .* is that of state\[0\]"),
    (f'path = "emoji.state"\nid = "{{{ONE}}}"', r"state\[2\]\.id: .* is that of state\[0\]"),
    ('path = "emoji.state"\ndefault = true', r"state\[2\]\.default: state\[0\], '文言文', is the default already"),
]


@pytest.mark.parametrize(("entry", "words"), BAD_ENTRIES, ids=range(len(BAD_ENTRIES)))
def test_what_is_wrong_with_one_entry_is_listed_and_the_others_load(config, entry, words):
    config.write_text(f"{CONFIG}\n[[state]]\n{entry}\n\n[[state]]\npath = 'emoji.state'\nname = 'last'\n", "utf-8")
    shelf = read_ai00(config)
    assert list(shelf) == ["文言文", "emoji", "last"]
    ((name, reason),) = shelf.unreadable.items()
    assert re.search(words, reason) and reason.startswith("'Config.toml': state[2].") and "; " in reason
    assert reason.isprintable() and len(reason) < 400
    assert re.search(words, repr(shelf)) or len(reason) > 80
    with pytest.raises(KeyError, match="cannot be used"):
        shelf[name]
    assert torch.equal(shelf[ONE].wkv, wkv()) and shelf.default == "文言文"
    write_ai00({"new": State(wkv(5))}, config)
    assert list(read_ai00(config)) == ["文言文", "emoji", "last", "new"]


def test_an_entry_without_a_usable_name_is_called_by_its_place(config):
    rest = '[[state]]\nid = "x"\n[[state]]\npath = "../up.state"\nname = "up"\n[[state]]\npath = "../b.state"\n'
    config.write_text(CONFIG + rest, "utf-8")
    assert list(read_ai00(config).unreadable) == ["state[2]", "up", "state[4]"]
    config.write_text('state = [5, {path = "emoji.state"}]', "utf-8")
    shelf = read_ai00(config)
    assert list(shelf) == ["emoji"] and "state[0]: need a table, got '5'" in shelf.unreadable["state[0]"]


def test_a_second_default_is_none_where_the_first_is_broken(config):
    first = "[[state]]\npath = '../x'\ndefault = true\n"
    config.write_text(first + "[[state]]\npath = 'emoji.state'\ndefault = true\n", "utf-8")
    shelf = read_ai00(config)
    assert shelf.default == "emoji" and list(shelf.unreadable) == ["state[0]"]


def test_a_missing_id_is_noted_and_a_default_too(config):
    table = read_ai00(config).table().set_index("name")
    assert "Ai00 makes one" in table.loc["emoji", "note"]
    assert table.loc["文言文", "note"] == "the default"


def test_two_entries_of_one_name_are_two_states(config):
    more = '[[state]]\npath="emoji.state"\nname="文言文"\n[[state]]\npath="emoji.state"\nname="文言文 (2)"\n'
    config.write_text(CONFIG + more, "utf-8")
    shelf = read_ai00(config)
    assert list(shelf) == ["文言文", "emoji", "文言文 (2)", "文言文 (2) (2)"]
    assert torch.equal(shelf["文言文 (2)"].wkv, wkv(2))


BAD_FILES = {
    "gone": "no such file",
    "link": "link out of the folder",
    "up/inner": "link out of the folder",
    "loop": "leads back to itself",
    "dangling": "no such file|does not exist",
    "page": "HTML",
    "pickle": "pickle",
    "torch_old": "torch before 1.6",
    "pipe": "named pipe",
    "folder": "folder",
    "model": "is a model",
    "empty": "empty",
    "n" * 300: "no such file",
}


def test_files_of_every_wrong_kind_are_listed_by_entry_and_path(config, tmp_path):
    models = tmp_path / "assets" / "models"
    save_state(State(wkv()), tmp_path / "outside.state")
    save_state(State(wkv()), tmp_path / "inner.state")
    (models / "link.state").symlink_to(tmp_path / "outside.state")
    (models / "up").symlink_to(tmp_path)
    (models / "loop.state").symlink_to("loop.state")
    (models / "dangling.state").symlink_to("nowhere.state")
    (models / "page.state").write_bytes(b"<html>")
    (models / "pickle.state").write_bytes(pickle.dumps({"blocks.0.att.time_state": 1}))
    torch.save({"a": torch.ones(1)}, models / "torch_old.state", _use_new_zipfile_serialization=False)
    os.mkfifo(models / "pipe.state")
    (models / "folder.state").mkdir()
    torch.save({"emb.weight": torch.ones(2, 2)}, models / "model.state")
    (models / "empty.state").write_bytes(b"")
    config.write_text(CONFIG + "".join(f'[[state]]\npath = "{name}.state"\n' for name in BAD_FILES), "utf-8")
    shelf = read_ai00(config)
    assert list(shelf) == ["文言文", "emoji"]
    assert len(shelf.unreadable) == len(BAD_FILES)
    for index, (name, words) in enumerate(BAD_FILES.items(), 2):
        reason = shelf.unreadable[name.rpartition("/")[2]]
        assert re.search(words, reason) and f"state[{index}].path: " in reason and "; " in reason


def test_a_state_for_another_model_is_listed(config, tiny):
    config.write_text(CONFIG.replace("RWKV-x060-World-3B-v2.st", "mine.st"), "utf-8")
    shelf = read_ai00(config, tiny)
    assert len(shelf) == 0
    assert re.search(r"state\[0\]\.path: .*H=1 \(model 2\)", shelf.unreadable["文言文"])


@pytest.mark.parametrize("name", ["状态", "小说扩写", "单轮问答"])
def test_gbk_bytes_that_are_valid_utf8_get_a_hint(config, name):
    raw = name.encode("gbk")
    try:
        wrong = raw.decode("utf-8")
    except UnicodeDecodeError:
        wrong = name.encode().decode("gbk", "ignore")  # the other way round: UTF-8 that was read as GBK
    save_state(State(wkv()), config.parents[1] / "models" / f"{name}.state")
    config.write_bytes(CONFIG.encode() + f'[[state]]\npath = "{wrong}.state"\n'.encode())
    reason = next(iter(read_ai00(config).unreadable.values()))
    assert "no such file" in reason and "UTF-8" in reason
    assert name != "状态" or "in GBK its bytes are '状态.state'" in reason


def test_a_path_as_windows_writes_it_is_found(config):
    config.write_text("[model]\npath='assets\\models'\n[[state]]\npath = 'states\\wenyan.state'\nname = 'w'\n", "utf-8")
    assert torch.equal(read_ai00(config)["w"].wkv, wkv())
    config.write_text(config.read_text().replace("name = 'w'\n", ""))
    assert list(read_ai00(config)) == ["wenyan"]


BAD_CONFIGS = [
    ('[state]\npath="a"', r"\[\[state\]\]"),
    ('state = "a"', r"\[\[state\]\]"),
    ("state = [1]", r"\[\[state\]\]"),
    ("state.path = 'a'", r"\[\[state\]\]"),
    ("state = 5", r"\[\[state\]\]"),
    ("model = 5", r"model\.path"),
    ("[model]\npath = 5", r"model\.path"),
    ("[model]\npath = ''", r"model\.path"),
    ("[[model]]\npath = 'a'", r"model\.path"),
    ("model:\n  path: x", "not TOML.*line 1"),
    ("---\nmodel:\n- a", "not TOML.*line 1"),
    ('{"model": {"path": "a"}}', "not TOML.*line 1"),
    ('[model]\npath="a"\npath="b"', "not TOML.*line 3"),
    ("[model]\n[model]", "not TOML.*line 2"),
    ("[[state]]\npath='a'\npath='b'", "not TOML.*line 3"),
    ("[[state]]\npath = states\\x.state", "not TOML.*line 2"),
    ("x = " + "[" * 2000 + "]" * 2000, "nested"),
    ("x = " + "[\n" * 2000 + "]\n" * 2000, "nested"),
    ("x = " + "{a=" * 2000 + "1" + "}" * 2000, "nested"),
    ("x = " + "9" * 5000, "number too long|not TOML"),
    (".".join(["a"] * 20_000) + " = 1", "line 1: nested"),
    ("[" + ".".join(["a"] * 20_000) + "]", "line 1: nested"),
    ("x = 1\ny." + "a." * 20_000 + "z = 1", "line 2: nested"),
    ("#" * (2 << 20), "at most"),
    ("\0", "not TOML"),
    ("", "is empty"),
]


@pytest.mark.parametrize(("text", "words"), BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_a_config_that_is_wrong_is_refused_at_once(config, text, words):
    config.write_text(text, "utf-8")
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=words) as caught:
        read_ai00(config)
    assert time.perf_counter() - start < 2
    assert "Config.toml" in str(caught.value) and len(str(caught.value)) < 400


def test_a_config_without_states_is_an_empty_shelf(config):
    for text in ("\n", "# nothing\n", "[[lora]]\npath = 'x'\nalpha = 192\n", "state = []\n"):
        config.write_text(text, "utf-8")
        assert len(read_ai00(config)) == 0


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_told_from_utf8_by_the_byte(config, encoding):
    text = CONFIG if encoding != "latin-1" else "# configuraci\xf3n\n"
    config.write_bytes(text.encode(encoding))
    with pytest.raises(ConfigError, match=r"not UTF-8 at byte \d+; save it as UTF-8"):
        read_ai00(config)


def test_a_config_or_model_folder_that_is_missing_is_a_path_error(config):
    with pytest.raises(PathError, match="no such file"):
        read_ai00(config.parent / "none.toml")
    for folder in ("nowhere", "n" * 5000, "Config.toml"):
        config.write_text(f"[model]\npath = '{folder}'")
        with pytest.raises(PathError, match=rf"model\.path.*'{folder[:70]}"):
            read_ai00(config)
    for odd in (config.parent, "/dev/null"):
        with pytest.raises(PathError, match=r"is a (folder|device); give Ai00's Config\.toml"):
            read_ai00(odd)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_mark_and_other_line_ends_do_not_matter(config, mark, end):
    config.write_bytes(mark + CONFIG.replace("\n", end).encode())
    assert list(read_ai00(config)) == ["文言文", "emoji"]


@pytest.mark.parametrize("key", ["colour", "Path", "\x1b[2J"])
def test_unknown_fields_warn_once(config, key):
    entry = f'[[state]]\npath="emoji.state"\n{json.dumps(key)}="red"\n'
    config.write_text(CONFIG + entry * 3, "utf-8")
    with pytest.warns(UserWarning, match=r"state\[2\] and 2 more: unknown field") as caught:
        assert len(read_ai00(config)) == 5
    assert len(caught) == 1 and str(caught[0].message).isprintable()


def test_two_thousand_entries_are_listed_at_once_and_read_when_asked_for(config, monkeypatch):
    config.write_text("".join(f'[[state]]\npath="emoji.state"\nname="s{i}"\nzzz=1\n' for i in range(2000)), "utf-8")
    times = []
    with monkeypatch.context() as patch:
        patch.setattr(TensorFile, "__init__", None)
        for _ in range(3):
            start = time.perf_counter()
            with pytest.warns(UserWarning, match="'zzz'"):
                shelf = read_ai00(config)
            times.append(time.perf_counter() - start)
            assert len(shelf) == 2000
    assert min(times) < 1
    assert torch.equal(shelf["s1999"].wkv, wkv(2))


def test_a_refresh_reads_the_config_again(config):
    shelf = read_ai00(config)
    write_ai00({"new": State(wkv(3))}, config)
    assert "new" not in shelf
    assert shelf.refresh() is shelf and list(shelf) == ["文言文", "emoji", "new"]
    config.write_text("[state]", "utf-8")
    with pytest.raises(ConfigError):
        shelf.refresh()
    assert list(shelf) == ["文言文", "emoji", "new"]


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
        ({"taken": State(wkv())}, SaveError, "there with other values"),
        ({"fresh": State(wkv()), "../up": State(wkv())}, PathError, "file name"),
        ({"文言文": State(wkv(9))}, ConfigError, "of this name"),
        ({5: State(wkv())}, ArgError, "names as text"),
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
    write_ai00(Shelf(folder), config)
    assert 'path = "Ai00-mine.state"' in config.read_text("utf-8")


def test_many_entries_on_one_line_are_no_nesting(tmp_path):
    (tmp_path / "m").mkdir()
    entries = ", ".join(f'{{path = "a{i}.state"}}' for i in range(150))
    (tmp_path / "Config.toml").write_text(f'state = [{entries}]\n[model]\npath = "m"\n')
    assert len(read_ai00(tmp_path / "Config.toml").unreadable) == 150
    (tmp_path / "Config.toml").write_text(f'a = {"[" * 101}{"]" * 101}\n[model]\npath = "m"\n')
    with pytest.raises(ConfigError, match="line 1: nested too deep"):
        read_ai00(tmp_path / "Config.toml")
