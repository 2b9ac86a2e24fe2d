"""Entries go into a Config.toml as people have them: no byte of the rest moves, and nothing is added twice."""

import os
import tomllib

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, ConfigError, PathError, SaveError
from rwkvlab.states.ai00 import read_ai00, write_ai00
from rwkvlab.states.card import StateCard
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State

ONE, TWO = "fd7a60ed-7807-449f-8256-bccae3246222", "6a9c9c3c-5ba2-4b34-8d4f-1a3f2a1b7a10"
CONFIG = f"""# 服务的配置。改动之后要重启。
[model]
embed_device = "Cpu"           # 词表放在哪里: Cpu 或 Gpu
max_batch = 8                  # 同时处理的请求数
name = "RWKV-x060-World-3B-v2.1-20240417-ctx4096.st"
path = "assets/models"         # 模型和状态都相对于这个文件夹
precision = "Fp16"
quant = 0                      # 量化的层数
quant_type = "Int8"
stop = ["\\n\\n"]
token_chunk_size = 128

# [[state]] # 可以写好几个
# id = "00000000-0000-0000-0000-000000000000"
# name = "example"
# path = "example.state"

[[state]] # 第一个
id = "{ONE}"
name = "文言文"
path = "states/rwkv-x060-chn_文言文QA-3B-20240601-ctx1024.state"
default = true

# [[lora]]
# alpha = 192
# path = "my.lora"

[[state]]
path = 'emoji.state'
# the one above is short

[tokenizer]
path = "assets/tokenizer/rwkv_vocab_v20230424.json"

[bnf]
enable_bytes_cache = true
start_nonterminal = "start"

[adapter]
Auto = {{}}

[listen]
acme = false
domain = "local"
ip = "0.0.0.0"   # 所有的网卡
port = 65530
[[listen.app_keys]]
app_id = "admin"
secret_key = '''ai00
[[state]]'''
"""


def wkv(value=1.0):
    return torch.arange(8.0).view(2, 1, 2, 2) * value


@pytest.fixture
def config(tmp_path):
    models = tmp_path / "assets" / "models"
    (models / "states").mkdir(parents=True)
    (tmp_path / "assets" / "configs").mkdir()
    save_state(State(wkv()), models / "states" / "rwkv-x060-chn_文言文QA-3B-20240601-ctx1024.state")
    save_state(State(wkv(2)), models / "emoji.state")
    path = tmp_path / "assets" / "configs" / "Config.toml"
    path.write_bytes(CONFIG.encode())
    return path


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("cut", [True, False])
def test_new_entries_are_added_and_every_other_byte_stays(config, mark, end, cut):
    before = mark + CONFIG.replace("\n", end).encode()
    before = before.removesuffix(end.encode()) if cut else before
    config.write_bytes(before)
    config.chmod(0o640)
    assert write_ai00({"半 half": 0.5 * State(wkv()), "plain": State(wkv(4))}, config) == config
    after = config.read_bytes()
    at = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    new = len(after) - len(before)
    # the block that is new may begin with bytes that stood there anyway
    starts = [i for i in range(max(0, at - new), at + 1) if after[:i] + after[i + new :] == before]
    assert starts and before[: starts[0]].decode().endswith(("short", "short" + end))
    assert config.stat().st_mode & 0o777 == 0o640
    assert b"\n" not in after.replace(b"\r\n", b"") or end == "\n"
    data, old = tomllib.loads(after.decode("utf-8-sig")), tomllib.loads(CONFIG)
    assert data | {"state": data["state"][:2]} == old | {"listen": data["listen"]}
    assert [entry.get("name") for entry in data["state"]] == ["文言文", None, "半 half", "plain"]
    assert len({entry["id"] for entry in data["state"] if "id" in entry}) == 3
    shelf = read_ai00(config)
    assert torch.equal(shelf["半 half"].wkv, 0.5 * wkv()) and torch.equal(shelf[ONE].wkv, wkv())
    assert "Ai00" in shelf["plain"].card.source and shelf.default == "文言文"


def test_a_config_without_states_gets_them_at_its_end(config):
    for before in ("[model]\npath = 'assets/models'", "[model]\npath = 'assets/models'\n\n# end\n", "# nothing\n"):
        config.write_text(before, "utf-8")
        write_ai00({f"new{len(before)}": State(wkv())}, config)
        assert config.read_text("utf-8").startswith(before)
        assert list(read_ai00(config)) == [f"new{len(before)}"]


@pytest.mark.parametrize("text", ["state = [{path = 'emoji.state'}]\n", "state = []\n", "state = [\n]\n[listen]\n"])
def test_an_inline_list_is_refused_with_what_to_do(config, text):
    config.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"inline list.*\[\[state\]\] tables first"):
        write_ai00({"new": State(wkv())}, config)
    assert config.read_text("utf-8") == text
    assert not (config.parents[1] / "models" / "new.state").exists()


def test_dotted_keys_and_tables_of_an_entry_stay_its_own(config):
    text = "model.path = 'assets/models'\n[[state]]\npath = 'emoji.state'\n[state.extra]\nx.y = 1\n"
    config.write_text(text, "utf-8")
    with pytest.warns(UserWarning, match="'extra', ignored"):
        write_ai00({"new": State(wkv())}, config)
    first, second = tomllib.loads(config.read_text("utf-8"))["state"]
    assert first == {"path": "emoji.state", "extra": {"x": {"y": 1}}} and second["name"] == "new"


@pytest.mark.parametrize("name", ["quote ' it", "a = [b]", "# no", "文言文-🙂", "tab and ' '", "Ⅳ"])
def test_odd_names_are_quoted(config, name):
    write_ai00({name: State(wkv(3))}, config)
    assert torch.equal(read_ai00(config)[name].wkv, wkv(3))
    assert tomllib.loads(config.read_text("utf-8"))["state"][-1]["path"] == f"{name}.state"


def test_entries_that_are_there_stay_in_whatever_layout(tmp_path):
    (tmp_path / "m").mkdir()
    for suffix in ("pth", "state", "safetensors"):
        save_state(State(torch.ones(1, 1, 2, 2)), tmp_path / "m" / f"{suffix}.{suffix}")
    entries = "".join(f'[[state]]\npath = "{name}.{name}"\n' for name in ("pth", "state", "safetensors"))
    config = tmp_path / "Config.toml"
    config.write_text(f'[model]\npath = "m"\n{entries}')
    before = config.read_bytes()
    write_ai00(read_ai00(config), config)
    assert config.read_bytes() == before and len(os.listdir(tmp_path / "m")) == 3


def test_writing_twice_adds_nothing(config, tmp_path):
    models = tmp_path / "assets" / "models"
    save_state(State(wkv(3)), models / "third.state")
    save_state(State(wkv(4)), models / "fourth.pth")
    files = Shelf(models)
    write_ai00(files, config)
    write_ai00({"plain": State(wkv(5))}, config)
    once, listed = config.read_bytes(), sorted(os.listdir(models))
    for again in (files, {"plain": State(wkv(5))}, read_ai00(config), dict(read_ai00(config))):
        write_ai00(again, config)
        assert config.read_bytes() == once and sorted(os.listdir(models)) == listed


def test_an_entry_whose_file_is_missing_gets_it(config):
    models = config.parents[1] / "models"
    (models / "emoji.state").unlink()
    before = config.read_bytes()
    write_ai00({"emoji": State(wkv(7))}, config)
    assert config.read_bytes() == before
    assert torch.equal(read_ai00(config)["emoji"].wkv, wkv(7))


def test_a_write_that_fails_leaves_no_file(config):
    models = config.parents[1] / "models"
    before = sorted(os.listdir(models))
    with pytest.raises(SaveError, match="65504"):
        write_ai00({"good": State(wkv(3)), "bad": State(wkv(1e6))}, config)
    assert config.read_bytes() == CONFIG.encode() and sorted(os.listdir(models)) == before
    config.chmod(0o444)
    with pytest.raises(PathError, match="read-only"):
        write_ai00({"good": State(wkv(3))}, config)
    assert sorted(os.listdir(models)) == before
    config.chmod(0o644)
    write_ai00({"good": State(wkv(3))}, config)
    assert "good" in read_ai00(config)


@pytest.mark.parametrize("order", [1, -1])
def test_two_states_of_one_file_are_refused_and_nothing_is_written(config, order):
    config.write_text(CONFIG + "\n[[state]]\nname = 'a'\npath = 'X.state'\n", "utf-8")
    before, listed = config.read_bytes(), sorted(os.listdir(config.parents[1] / "models"))
    states = {"a": State(wkv(1)), "X": State(wkv(2))}
    with pytest.raises(SaveError, match=r"'X\.state' is the file of '[aX]'; rename one of them"):
        write_ai00(dict(list(states.items())[::order]), config)
    assert config.read_bytes() == before and sorted(os.listdir(config.parents[1] / "models")) == listed


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("entry", ["", "\n[[state]]\nname = 'z'\npath = 'z.state'\n"])
def test_nothing_is_written_through_a_link(config, tmp_path, there, entry):
    config.write_text(CONFIG + entry, "utf-8")
    before, outside = config.read_bytes(), tmp_path / "outside.state"
    if there:
        save_state(State(wkv(3)), outside)
    for target in (outside, "inside.state"):
        link = config.parents[1] / "models" / "z.state"
        link.symlink_to(target)
        if target == outside or not there:
            with pytest.raises((SaveError, ConfigError), match=r"is a link to no file in|'z\.state'; rename"):
                write_ai00({"z": State(wkv(3))}, config)
        link.unlink()
    assert config.read_bytes() == before and outside.exists() == there
    assert not (config.parents[1] / "models" / "inside.state").exists()


def test_an_entry_that_is_wrong_is_refused_with_what_is_wrong(config):
    config.write_text(CONFIG + "\n[[state]]\nname = 'a'\npath = 'a.state'\nid = 'bad'\n", "utf-8")
    save_state(State(wkv(3)), config.parents[1] / "models" / "a.state")
    for shelf in ({"a": State(wkv(3))}, Shelf(config.parents[1] / "models")):
        with pytest.raises(ConfigError, match=r"'a': the entry of this name is wrong: state\[2\]\.id: need a UUID"):
            write_ai00(shelf, config)


def test_a_name_that_is_an_id_of_another_state_is_refused(config):
    for name in (ONE, ONE.upper(), ONE.replace("-", "")):
        with pytest.raises(ConfigError, match="has another state with this id"):
            write_ai00({name: State(wkv(3))}, config)


def test_what_is_no_mapping_of_states_is_refused(config):
    with pytest.raises(ArgError, match=r"need a Shelf or a mapping, got State; for one state: \{'its name': state\}"):
        write_ai00(State(wkv()), config)
    for name in ("new", "emoji"):
        with pytest.raises(ArgError, match=f"'{name}': need a State, got Tensor"):
            write_ai00({name: wkv()}, config)


def test_a_config_with_numbers_that_are_none_is_added_to(config):
    config.write_text(CONFIG + "\n[more]\nx = nan\ny = [-nan, {z = nan}]\n", "utf-8")
    write_ai00({"new": State(wkv(3))}, config)
    assert "new" in read_ai00(config)


def test_a_state_for_another_architecture_than_the_config_is_for_is_told(config, recwarn):
    card = StateCard(arch="x070")
    write_ai00({"same": State(wkv(3), card=card.replace(arch="x060")), "unsaid": State(wkv(4))}, config)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"'seven': made for RWKV-7, and 'RWKV-x060-World-3B-v2.*model, is RWKV-6"):
        write_ai00({"seven": State(wkv(5), card=card)}, config)
    save_state(State(wkv(6)), config.parents[1] / "models" / "rwkv-x070-mine.state")
    with pytest.warns(UserWarning, match="made for RWKV-7"):
        write_ai00(Shelf(config.parents[1] / "models"), config)
    assert "seven" in read_ai00(config)


def test_a_name_of_a_broken_entry_is_taken(config):
    config.write_text(CONFIG + "\n[[state]]\nname = 'up'\npath = '../up.state'\n", "utf-8")
    with pytest.raises(ConfigError, match=r"entry of this name is wrong: state\[2\]\.path: '\.\./up\.state' leaves"):
        write_ai00({"up": State(wkv())}, config)
    write_ai00({"other": State(wkv(3))}, config)
    assert "other" in read_ai00(config) and "up" in read_ai00(config).unreadable


def test_mounted_states_go_into_mix_compare_and_batches(tmp_path, tiny, random_state):
    for seed, name in enumerate(("文言文", "emoji"), 1):
        save_state(random_state(name, seed), tmp_path / f"{name}.state")
    entries = f'[[state]]\nid = "{ONE}"\npath = "文言文.state"\n[[state]]\nid = "{TWO}"\npath = "emoji.state"\n'
    bad = '[[state]]\npath = "gone.state"\n'
    (tmp_path / "Config.toml").write_text(f"[model]\npath = '.'\n{entries}{bad}", "utf-8")
    shelf = lab.read_ai00(tmp_path / "Config.toml", tiny)
    assert list(shelf) == ["文言文", "emoji"] and list(shelf.unreadable) == ["gone"]
    mixed = lab.mix(list(shelf.values()), [0.25, 0.75])
    assert torch.allclose(mixed.wkv, 0.25 * shelf[ONE].wkv + 0.75 * shelf[TWO].wkv, atol=1e-6)
    compared = lab.compare(tiny, ["a", "b"], shelf, template="raw", max_tokens=2, temperature=0)
    assert list(compared.table["state"].unique()) == ["zero", "文言文", "emoji"]
    said = tiny.generate_batch(["a", "a"], [shelf[ONE], shelf["emoji"]], max_tokens=3, temperature=0)
    alone = tiny.generate("a", shelf[TWO], max_tokens=3, temperature=0)
    assert said[1].tokens == alone.tokens
