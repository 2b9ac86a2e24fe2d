"""A state of one version on a model of another: refused where card or name tells, a warning where only a hint does."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from rwkvlab.errors import MismatchError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.hints import hint_against
from rwkvlab.states.state import State

WKV = torch.arange(16.0).view(1, 1, 4, 4)


def model(arch):
    return SimpleNamespace(dims=Dims(arch, 1, 1, 4, 4, 4, 8, 9), card=ModelCard("m", arch, "ab" * 32))


@pytest.mark.parametrize(
    "name", ["rwkv6-world-3b-x.pth", "rwkv-x060-chn_single_round_qa-1B6-20240516.pth", "RWKV-6-x.pth"]
)
def test_what_the_name_tells_is_refused(tmp_path, name):
    path = save_state(State(WKV), tmp_path / name)
    with pytest.raises(MismatchError, match=r"made for RWKV-6, the model is RWKV-7"):
        load_state(path, model("x070"))


def test_what_the_card_tells_is_refused_whatever_the_name(tmp_path):
    path = save_state(State(WKV, card=StateCard(arch="x060")), tmp_path / "rwkv7-x.safetensors")
    with pytest.raises(MismatchError, match=r"made for RWKV-6, the model is RWKV-7"):
        load_state(path, model("x070"))


@pytest.mark.parametrize(
    ("name", "arch", "words"),
    [
        ("emoji-1B6.pth", "x070", r"'1\.6B', a size of RWKV-6"),
        ("emoji-3b.pth", "x070", "a size of RWKV-5 and RWKV-6"),
        ("emoji-2.9b.pth", "x060", r"'2\.9B', a size of RWKV-7"),
        ("g1a-emoji.pth", "x060", "'g1a', a series of RWKV-7"),
        ("emoji-20240516.pth", "x070", "'20240516', before RWKV-7"),
        ("my_rwkv6_emoji.pth", "x070", "its name 'my_rwkv6_emoji' names RWKV-6"),
        ("emoji_x060.pth", "x070", "names RWKV-6"),
        ("RWKV-4-emoji.pth", "x070", "names RWKV-4"),
        ("rwkv-6 states/emoji.pth", "x070", "its folder 'rwkv-6 states' names RWKV-6"),
    ],
)
def test_what_is_only_hinted_at_loads_with_a_warning_and_a_note(tmp_path, name, arch, words):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path = save_state(State(WKV), tmp_path / name)
    with pytest.warns(UserWarning, match=words) as caught:
        state = load_state(path, model(arch))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert path.name in str(caught[0].message) and "make sure" in str(caught[0].message)
    assert "the model is RWKV-" in state.card.notes[-1]
    assert torch.equal(state.wkv, WKV)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_state(path)


def test_a_run_time_list_that_took_its_version_from_the_model_is_warned_about_too(tmp_path):
    path = tmp_path / "dump-3B.pth"
    torch.save([torch.ones(4), WKV[0].clone(), torch.ones(4)], path)
    with pytest.warns(UserWarning, match="a size of RWKV-5"):
        load_state(path, model("x070"))


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        *(("emoji.pth", arch) for arch in ("x052", "x060", "x070")),
        ("emoji-1.5b.pth", "x070"),
        ("emoji-2.9B-20250519.pth", "x070"),
        ("g1-emoji.pth", "x070"),
        ("emoji-3B-20240516.pth", "x060"),
        ("emoji-v6.pth", "x070"),
        ("rwkv6_or_rwkv7.pth", "x070"),
        ("rwkv-1000-state.pth", "x070"),
        ("RWKV-6-World-2.9B.pth", "x060"),
    ],
)
def test_nothing_is_said_without_a_hint(tmp_path, name, arch):
    path = save_state(State(WKV), tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_state(path, model(arch))


def test_a_card_with_its_base_outweighs_every_hint(tmp_path):
    path = save_state(State(WKV, like=model("x070")), tmp_path / "emoji-3B.safetensors")
    assert hint_against(path, "x070")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_state(path, model("x070"))
