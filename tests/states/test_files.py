"""States come out of every layout the right way round, and go back bit for bit."""

import json
import os
import warnings
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rwkvlab.errors import (
    ArgError,
    FormatError,
    MismatchError,
    NonFiniteError,
    SaveError,
    SchemaError,
)
from rwkvlab.model.inspect import inspect_file
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.files import load_state, peek_state, save_state
from rwkvlab.states.state import State

L, H, N = 3, 2, 4


def key(layer):
    return f"blocks.{layer}.att.time_state"


@pytest.fixture
def wkv():
    """[L,H,V,K] of numbers that fp16 and bf16 hold exactly, no head its own transpose."""
    return torch.randint(-100, 100, (L, H, N, N), generator=torch.Generator().manual_seed(0)) / 8


@pytest.fixture
def model():
    dims = Dims("x070", L=L, H=H, C=H * N, K=N, V=N, ffn=4 * H * N, vocab=50)
    return SimpleNamespace(dims=dims, card=ModelCard("m", "x070", "ab" * 32))


def tuned(wkv, path, dtype=torch.bfloat16):
    torch.save({key(layer): wkv[layer].to(dtype).clone() for layer in range(len(wkv))}, path)
    return path


def ai00(wkv, path, dtype=torch.float16, metadata=None):
    layers = {key(layer): wkv[layer].to(dtype).transpose(1, 2).contiguous() for layer in range(len(wkv))}
    save_file(layers, path, {"format": "pt"} if metadata is None else metadata)
    return path


def full(wkv):
    shifts = torch.arange(L * H * N).view(L, H * N) / 4
    card = StateCard("文言文", "x070", "ab" * 32, "g1", "tuned", ("a", "b"), "", ("note",))
    return State(wkv + 1e-7, att_shift=shifts, ffn_shift=-shifts, card=card)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16, torch.float64])
def test_a_tuned_pth_is_value_by_key(tmp_path, wkv, dtype):
    state = load_state(tuned(wkv, tmp_path / "rwkv-x060-chn_小说-3B-ctx1024.pth", dtype))
    assert torch.equal(state.wkv, wkv)
    assert state.wkv.dtype == torch.float32
    assert not state.has_shifts
    assert state.card.name == "rwkv-x060-chn_小说-3B-ctx1024"
    assert state.card.arch == "x060"
    assert any("taken from the file name" in note for note in state.card.notes)
    assert "tuned .pth" in state.card.source


def test_an_ai00_state_is_turned_round(tmp_path, wkv):
    for name in ("a.state", "a.st"):
        state = load_state(ai00(wkv, tmp_path / name))
        assert torch.equal(state.wkv, wkv)
        assert "Ai00" in state.card.source
    assert torch.equal(load_state(ai00(wkv, tmp_path / "b.state", metadata={})).wkv, wkv)
    with pytest.raises(SchemaError, match="cannot tell which way round"):  # a tuned .pth in fp16 looks just so
        load_state(ai00(wkv, tmp_path / "a.safetensors"))
    assert torch.equal(load_state(tmp_path / "a.safetensors", orientation="KV").wkv, wkv)


def test_heads_need_not_be_square(tmp_path):
    wkv = torch.randn(L, H, 6, 4).half().float()
    assert torch.equal(load_state(tuned(wkv, tmp_path / "a.pth", torch.float32)).wkv, wkv)
    assert torch.equal(load_state(ai00(wkv, tmp_path / "a.state")).wkv, wkv)


def test_our_own_file_keeps_everything(tmp_path, wkv):
    state = full(wkv)
    back = load_state(save_state(state, tmp_path / "x.safetensors"))
    for part in ("wkv", "att_shift", "ffn_shift"):
        assert torch.equal(getattr(back, part), getattr(state, part))
    assert back.card.replace(source="") == state.card


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".pth", "bf16"), (".pth", None), (".state", None), (".safetensors", "fp16")]
)
def test_a_round_trip_keeps_every_bit_that_the_dtype_holds(tmp_path, wkv, suffix, dtype):
    wkv[0, 0, 0, 0] = -0.0
    state = State(wkv)
    back = load_state(save_state(state, tmp_path / f"a{suffix}", dtype=dtype))
    assert torch.equal(back.wkv.view(torch.int32), wkv.view(torch.int32))


def test_other_programs_find_what_they_expect_in_our_files(tmp_path, wkv):
    pth = torch.load(save_state(State(wkv), tmp_path / "a.pth"), weights_only=True)
    assert list(pth) == [key(i) for i in range(L)]
    assert all(torch.equal(pth[key(i)], wkv[i]) for i in range(L))
    state = load_file(save_state(State(wkv), tmp_path / "a.state"))
    assert all(torch.equal(state[key(i)], wkv[i].transpose(1, 2).half()) for i in range(L))


def test_token_shifts_are_not_lost_in_silence(tmp_path, wkv):
    for suffix in (".pth", ".state"):
        with pytest.raises(SaveError, match=r"token-shifts.*drop_shifts=True"):
            save_state(full(wkv), tmp_path / f"a{suffix}")
        back = load_state(save_state(full(wkv), tmp_path / f"a{suffix}", drop_shifts=True))
        assert not back.has_shifts


def test_our_own_file_can_do_without_token_shifts(tmp_path, wkv):
    sizes = []
    for name, drop in (("whole", False), ("bare", True)):
        path = save_state(full(wkv).named("mine"), tmp_path / f"{name}.safetensors", drop_shifts=drop)
        back = load_state(path)
        assert torch.equal(back.wkv, full(wkv).wkv) and back.card.name == "mine"
        assert back.has_shifts != drop
        assert inspect_file(path).shifts != drop and not inspect_file(path).problem
        sizes.append(path.stat().st_size)
    assert sorted(load_file(tmp_path / "bare.safetensors")) == ["wkv"]
    assert sizes[0] - sizes[1] >= 2 * 4 * full(wkv).att_shift.numel()


def test_values_that_fp16_cannot_hold_are_refused_or_reported(tmp_path, wkv):
    wkv[1, 0, 2, 3] = 65505.0
    with pytest.raises(SaveError, match=r"'a\.state': layer 1: 65505 is above"):
        save_state(State(wkv), tmp_path / "a.state")
    save_state(State(wkv), tmp_path / "a.pth")
    wkv[1, 0, 2, 3] = 65504.0
    wkv[2, 0, 0, :2] = 1e-9
    with pytest.warns(UserWarning, match="layer 2: 2 values are too small"):
        save_state(State(wkv), tmp_path / "a.state")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_state(State(wkv), tmp_path / "a.safetensors")


def test_values_that_become_zero_are_told_of_once(tmp_path, wkv):
    with pytest.warns(UserWarning, match=r"'a\.state': layer 0, layer 1, layer 2: \d+ values are too small") as caught:
        save_state(State(wkv * 1e-10), tmp_path / "a.state")
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_values_that_bf16_cannot_hold_are_refused(tmp_path, wkv):
    wkv[2, 0, 0, 0] = torch.finfo(torch.float32).max
    for suffix in (".pth", ".safetensors"):
        with pytest.raises(
            SaveError, match=r"(layer 2|wkv): 3\.40282e\+38 is too large for torch\.bfloat16; save as fp32"
        ):
            save_state(State(wkv), tmp_path / f"a{suffix}", dtype="bf16")
    assert not list(tmp_path.iterdir())
    assert torch.equal(load_state(save_state(State(wkv), tmp_path / "a.pth")).wkv, wkv)


@pytest.mark.parametrize("suffix", [".pth", ".state", ".st", ".safetensors"])
def test_a_state_can_be_saved_onto_the_file_that_it_came_from(tmp_path, wkv, suffix):
    path = save_state(State(wkv), tmp_path / f"a{suffix}")
    state = load_state(path)
    save_state(2 * state, path)
    assert torch.equal(load_state(path).wkv, 2 * wkv)
    assert torch.equal(state.wkv, wkv)
    save_state(state, path)
    assert torch.equal(load_state(path).wkv, wkv)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".pth", ".state", ".safetensors"])
def test_shared_strided_and_expanded_tensors_are_saved_by_value(tmp_path, wkv, suffix):
    shared = torch.zeros(L * H * N)
    for given in (
        wkv.mT,
        wkv[:, :, ::2, ::2],
        wkv.flip(2),
        wkv[:1].expand(L, H, N, N),
        wkv[0, 0, 0, 0].expand(L, H, N, N),
    ):
        made = State(given, att_shift=None if given.shape[2] != N else shared.view(L, -1))
        assert torch.equal(load_state(save_state(made, tmp_path / f"a{suffix}")).wkv, given)
    size = (tmp_path / f"a{suffix}").stat().st_size
    save_state(State(torch.randn(100 * L, H, N, N)[:L]), tmp_path / f"b{suffix}")
    assert (tmp_path / f"b{suffix}").stat().st_size == size  # and not the whole of what it was cut from


def test_what_cannot_be_saved_is_refused_before_writing(tmp_path, wkv):
    wkv[0, 0, 0, 0] = float("nan")
    for suffix in (".pth", ".state", ".safetensors"):
        with pytest.raises(SaveError, match="NaN"):
            save_state(State(wkv), tmp_path / f"a{suffix}")
    wkv[0, 0, 0, 0] = 0
    for wrong, words in (("a.bin", r"\.pth, \.state"), ("a", r"\.pth, \.state")):
        with pytest.raises(ArgError, match=words):
            save_state(State(wkv), tmp_path / wrong)
    with pytest.raises(ArgError, match="only one that Ai00 takes"):
        save_state(State(wkv), tmp_path / "a.state", dtype="fp32")
    with pytest.raises(ArgError, match="dtype"):
        save_state(State(wkv), tmp_path / "a.pth", dtype=torch.int8)
    with pytest.raises(ArgError, match="need a State"):
        save_state(wkv, tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())


def test_saving_and_loading_change_no_input(tmp_path, wkv):
    state = full(wkv)
    before = [part.clone() for part in (state.wkv, state.att_shift, state.ffn_shift)]
    save_state(state, tmp_path / "a.safetensors", dtype="fp16")
    save_state(state, tmp_path / "a.state", drop_shifts=True)
    assert all(map(torch.equal, before, (state.wkv, state.att_shift, state.ffn_shift)))


def test_a_state_that_needs_a_gradient_can_be_saved(tmp_path, wkv):
    save_state(State(wkv.requires_grad_()), tmp_path / "a.safetensors")
    assert torch.equal(load_state(tmp_path / "a.safetensors").wkv, wkv.detach())


def test_a_damaged_file_of_ours_is_noticed(tmp_path, wkv):
    path = save_state(full(wkv), tmp_path / "a.safetensors")
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"'a\.safetensors': .*sha256"):
        load_state(path)


@pytest.mark.parametrize("part", ["wkv", "att_shift", "ffn_shift"])
def test_a_flipped_bit_in_any_tensor_of_ours_is_noticed(tmp_path, wkv, part):
    path = save_state(full(wkv), tmp_path / "a.safetensors")
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[:8], "little")
    start, end = json.loads(raw[8 : 8 + size])[part]["data_offsets"]
    for place in (start, end - 1):
        raw[8 + size + place] ^= 4
        path.write_bytes(raw)
        with pytest.raises(FormatError, match=r"'a\.safetensors': its bytes are damaged \(sha256 differs\); download"):
            load_state(path)
        raw[8 + size + place] ^= 4
    path.write_bytes(raw)
    assert torch.equal(load_state(path).wkv, full(wkv).wkv)


def test_a_file_of_ours_tells_the_base_the_recipe_and_what_wrote_it(tmp_path, wkv):
    card = StateCard(name="文言文", base="ab" * 32, recipe="tuned: 9 steps, lr 0.04, batch 4, 9 examples, seed 5")
    with safe_open(save_state(full(wkv).replace(card=card), tmp_path / "a.safetensors"), "pt") as file:
        metadata = file.metadata()
    assert metadata["writer"] == f"rwkvlab {version('rwkvlab')}" and len(metadata["sha256"]) == 64
    assert json.loads(metadata["card"]) == card.to_dict()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"version": "2"}, FormatError, "version: got '2'"),
        ({"card": "{"}, SchemaError, "card: not JSON"),
        ({"card": "[" * 100_000}, SchemaError, "card"),
        ({"card": json.dumps({"name": 5})}, SchemaError, r"card\.name"),
        ({"sha256": ""}, FormatError, "sha256"),
    ],
)
def test_metadata_of_ours_that_is_wrong_is_named(tmp_path, wkv, changes, error, words):
    from rwkvlab.tensorfile import read_tensors

    path = save_state(full(wkv), tmp_path / "a.safetensors")
    with read_tensors(path) as file:
        tensors, metadata = {name: file.read(name) for name in file}, file.metadata
    save_file(tensors, path, metadata | changes)
    with pytest.raises(error, match=words):
        load_state(path)


def refused(path, value):
    torch.save(value, path)
    return path


def test_shapes_must_be_those_of_heads_and_alike(tmp_path):
    for shapes, words in (
        ([(1, 2, 4, 4)], r"blocks\.0\.att\.time_state: expected \[H,V,K\].*got \[1, 2, 4, 4\]"),
        ([(8, 4)], r"got \[8, 4\]"),
        ([(2, 4, 4), (2, 8, 8)], r"blocks\.1\.att\.time_state: expected \[2, 4, 4\].*got \[2, 8, 8\]"),
        ([(0, 4, 4)], r"got \[0, 4, 4\]"),
    ):
        value = {key(i): torch.ones(shape) for i, shape in enumerate(shapes)}
        with pytest.raises(MismatchError, match=words):
            load_state(refused(tmp_path / "x.pth", value))


def test_nan_is_refused_with_its_place(tmp_path, wkv):
    wkv[2, 1, 3, 0] = float("inf")
    wkv[2, 1, 3, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"'x\.pth': blocks\.2.*2 of 32 values.*first at \[1, 3, 0\]; retrain"):
        load_state(tuned(wkv, tmp_path / "x.pth"))
    wide = wkv.double()
    wide[2, 1, 3] = 1e300
    with pytest.raises(NonFiniteError):
        load_state(tuned(wide, tmp_path / "x.pth", torch.float64))


def test_large_values_load_with_a_note(tmp_path, wkv):
    wkv[0, 0, 0, 0] = 7e4
    assert any("largest value 7e+04" in n for n in load_state(tuned(wkv, tmp_path / "x.pth", torch.float32)).card.notes)


def test_a_state_that_does_not_fit_the_model_says_what_differs(tmp_path, wkv, model):
    assert torch.equal(load_state(tuned(wkv, tmp_path / "a.pth"), model).wkv, wkv)
    with pytest.raises(MismatchError, match=r"L=2 \(model 3\)"):
        load_state(tuned(wkv[:2], tmp_path / "b.pth"), model)
    with pytest.raises(MismatchError, match=r"H=4 \(model 2\), V=2 \(model 4\), K=2 \(model 4\)"):
        load_state(tuned(wkv.reshape(L, 8, 2, 2)[:, :4], tmp_path / "c.pth"), model)
    with pytest.raises(MismatchError, match="made for RWKV-6"):
        load_state(tuned(wkv, tmp_path / "rwkv-6-x.pth"), model)
    other = State(wkv, card=StateCard(arch="x070", base="cd" * 32))
    with pytest.raises(MismatchError, match="another base"):
        load_state(save_state(other, tmp_path / "d.safetensors"), model)


def test_a_state_of_another_architecture_is_refused_when_card_or_name_tells(tmp_path, wkv, model):
    card = save_state(State(wkv, card=StateCard("emoji", "x060")), tmp_path / "emoji.safetensors")
    # the card counts, whatever the file is called
    renamed = card.rename(tmp_path / "rwkv7-g1-emoji.safetensors")
    for path in (renamed, tuned(wkv, tmp_path / "rwkv-x060-a.pth"), ai00(wkv, tmp_path / "RWKV-6-World-3B-a.state")):
        with pytest.raises(MismatchError, match=r"made for RWKV-6, the model is RWKV-7 .*; load the model that it was"):
            load_state(path, model)
        assert torch.equal(load_state(path).wkv, wkv)


def test_a_trainer_s_counter_is_no_architecture_but_is_asked_about(tmp_path, wkv, model):
    path = tuned(wkv, tmp_path / "rwkv-6.pth")  # after epoch 6, as RWKV-LM names it
    with pytest.warns(UserWarning, match="names RWKV-6, the model is RWKV-7; make sure"):
        assert torch.equal(load_state(path, model).wkv, wkv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_state(path.rename(tmp_path / "rwkv-12.pth"), model)
        load_state(tuned(wkv, tmp_path / "rwkv-7.pth"), model)


def test_a_peek_tells_card_and_shape_without_reading_tensors(tmp_path, wkv):
    wkv = torch.cat([wkv, wkv], dim=2)  # V = 8, K = 4
    for path in (tuned(wkv, tmp_path / "a.pth"), ai00(wkv, tmp_path / "b.state")):
        card, shape = peek_state(path)
        assert shape == tuple(wkv.shape)
        assert card == load_state(path).card
