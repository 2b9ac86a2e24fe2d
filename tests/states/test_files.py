"""States come out of every layout the right way round, and go back bit for bit."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rwkvlab.errors import (
    ArgError,
    FormatError,
    MismatchError,
    NonFiniteError,
    SaveError,
    SchemaError,
)
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
    assert "taken from the file name" in state.card.notes[0]
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


def test_a_peek_tells_card_and_shape_without_reading_tensors(tmp_path, wkv):
    wkv = torch.cat([wkv, wkv], dim=2)  # V = 8, K = 4
    for path in (tuned(wkv, tmp_path / "a.pth"), ai00(wkv, tmp_path / "b.state")):
        card, shape = peek_state(path)
        assert shape == tuple(wkv.shape)
        assert card == load_state(path).card
