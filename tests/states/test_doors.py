"""The doors of states: what is no state, model, path or device is named, and a state works in inference mode."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, PathError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State


class FakeModel:
    dims = Dims("x070", L=2, H=2, C=8, K=4, V=4, ffn=16, vocab=9)
    card = ModelCard("fake", "x070", "ab" * 32)


def state():
    return State(torch.randn(2, 2, 4, 4))


def test_what_is_no_model_is_named(tmp_path):
    path = save_state(state(), tmp_path / "a.pth")
    for call in (lambda: load_state(path, "m.pth"), lambda: State(torch.ones(2, 2, 4, 4), like="m")):
        with pytest.raises(ArgError, match="need a model, got 'str'; open files with load_model"):
            call()
    with pytest.raises(ArgError, match="need a State or None, got 'str'; open files with load_state"):
        check_fits("s.pth", FakeModel())


@pytest.mark.parametrize("device", ["nowhere", 5.5, {}, "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(device):
    with pytest.raises(ArgError, match="device: "):
        state().to(device)


@pytest.mark.parametrize("path", [None, 5, ""])
def test_a_path_must_be_one(path):
    with pytest.raises(PathError, match="path: need"):
        save_state(state(), path)


def test_states_work_in_inference_mode():
    with torch.inference_mode():
        made = 0.5 * state() + state()
        assert made.wkv.shape == (2, 2, 4, 4)
        check_fits(made, FakeModel())


def test_a_state_loaded_for_a_model_keeps_its_architecture(tmp_path):
    loaded = load_state(save_state(state(), tmp_path / "a.pth"), FakeModel())
    assert loaded.card.arch == "x070"
    assert "taken from the model that it was loaded for" in loaded.card.notes[-1]
    again = load_state(save_state(loaded, tmp_path / "b.safetensors"))
    assert again.card.arch == "x070"
    other = SimpleNamespace(dims=replace(FakeModel.dims, arch="x060"), card=ModelCard("other", "x060", ""))
    with pytest.raises(
        MismatchError, match=r"made for RWKV-7 \(assumed when it was loaded for such a model; if that was"
    ):
        check_fits(again, other)
    known = State(again.wkv, card=StateCard(arch="x070"))
    with pytest.raises(MismatchError, match="made for RWKV-7, the model is RWKV-6"):
        check_fits(known, other)
