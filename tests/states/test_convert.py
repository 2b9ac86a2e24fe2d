"""A state goes from any layout to any other bit for bit where the dtype allows, and says so where it does not."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rwkvlab.errors import ArgError, MismatchError, PathError, SaveError, SchemaError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.convert import convert_state
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.state import State

L, H, N = 3, 2, 4
C = H * N


@pytest.fixture(autouse=True)
def _no_warning_goes_unseen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def wkv():
    """[L,H,V,K] of full bf16 significands, minus zero and a wide range, no head its own transpose."""
    wkv = torch.randn(L, H, N, N, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    wkv[0, 0, 0, 0], wkv[0, 0, 0, 1], wkv[1, 1, 2, 3] = -0.0, 3.0e-5, 30000.0
    return wkv.bfloat16().float()


@pytest.fixture
def shifts():
    return torch.randn(2, L, C, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    dims = Dims("x070", L=L, H=H, C=C, K=N, V=N, ffn=4 * C, vocab=50)
    return SimpleNamespace(dims=dims, card=ModelCard("m", "x070", "ab" * 32))


def key(layer):
    return f"blocks.{layer}.att.time_state"


def tuned(wkv, path, dtype=torch.bfloat16, **more):
    torch.save({key(i): wkv[i].to(dtype).clone() for i in range(len(wkv))} | more, path)
    return path


def bits(tensor):
    return tensor.contiguous().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(bits(a[k]), bits(b[k])) for k in a)


def pth(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("middle", ["b.safetensors", "b.pth"])
def test_a_tuned_pth_comes_back_bit_for_bit(tmp_path, wkv, dtype, middle):
    source = tuned(wkv.to(dtype), tmp_path / "a.pth", dtype)
    between = convert_state(source, tmp_path / middle)
    assert same(pth(convert_state(between, tmp_path / "c.pth")), pth(source))


@pytest.mark.parametrize("middle", ["b.safetensors", "b.pth", "b.st"])
def test_an_ai00_state_comes_back_bit_for_bit(tmp_path, wkv, middle):
    layers = {key(i): wkv[i].half().mT.contiguous() for i in range(L)}
    source = tmp_path / "a.state"
    save_file(layers, source, {"format": "pt"})
    between = convert_state(source, tmp_path / middle)
    if middle == "b.pth":
        assert all(torch.equal(pth(between)[key(i)], wkv[i].half()) for i in range(L))
    assert same(load_file(convert_state(between, tmp_path / "c.state")), layers)


def test_a_bf16_pth_goes_to_ai00_and_back_exactly_where_fp16_holds_it(tmp_path, wkv):
    source = tuned(wkv, tmp_path / "a.pth")
    back = convert_state(convert_state(source, tmp_path / "b.state"), tmp_path / "c.pth", dtype="bf16")
    assert same(pth(back), pth(source))


def test_ai00_s_json_keeps_all_in_our_own_layout(tmp_path, wkv, shifts):
    grid = torch.zeros(L, N + 2, C)
    grid[:, 0], grid[:, -1] = shifts
    grid[:, 1:-1] = wkv.permute(0, 3, 1, 2).reshape(L, N, C)  # row 1+k, column h*N+v
    source = tmp_path / "rwkv-x070-a.json"
    source.write_text(json.dumps({"data": grid.flatten().tolist(), "shape": [C, N + 2, L, 1]}))
    state = load_state(convert_state(source, tmp_path / "b.safetensors"))
    assert all(map(torch.equal, (state.wkv, state.att_shift, state.ffn_shift), (wkv, *shifts)))
    with pytest.raises(SaveError, match=r"token-shifts.*drop_shifts=True"):
        convert_state(source, tmp_path / "b.pth")
    dropped = convert_state(source, tmp_path / "b.pth", drop_shifts=True)
    assert pth(dropped)[key(0)].dtype == torch.float32
    assert torch.equal(load_state(dropped).wkv, wkv)


@pytest.mark.parametrize(("arch", "turned"), [("x060", True), ("x070", False)])
def test_a_run_time_list_keeps_its_shifts(tmp_path, wkv, shifts, arch, turned):
    source = tmp_path / f"rwkv-{arch}-a.pth"
    heads = wkv.mT if turned else wkv
    torch.save(
        [x for i in range(L) for x in (shifts[0, i].clone(), heads[i].contiguous(), shifts[1, i].clone())], source
    )
    state = load_state(convert_state(source, tmp_path / "b.safetensors"))
    assert all(map(torch.equal, (state.wkv, state.att_shift, state.ffn_shift), (wkv, *shifts)))
    assert state.card.arch == arch


def test_a_merged_checkpoint_gives_its_state_in_its_own_dtype(tmp_path, wkv):
    base = {"emb.weight": torch.ones(9, C), "blocks.0.att.r_k": torch.ones(H, N), "head.weight": torch.ones(9, C)}
    source = tuned(wkv, tmp_path / "m.pth", **base)
    taken = convert_state(source, tmp_path / "b.pth")
    assert same(pth(taken), {k: v for k, v in pth(source).items() if "time_state" in k})


def test_rwkv_cpp_s_buffer_needs_the_model(tmp_path, wkv, shifts, model):
    source = tmp_path / "a.bin"
    rows = [torch.cat([shifts[1, i], shifts[0, i], wkv[i].flatten()]) for i in range(L)]
    source.write_bytes(torch.cat(rows).numpy().tobytes())
    with pytest.raises(ArgError, match="pass the model"):
        convert_state(source, tmp_path / "b.safetensors", format="rwkv.cpp")
    state = load_state(convert_state(source, tmp_path / "b.safetensors", model, format="rwkv.cpp"))
    assert all(map(torch.equal, (state.wkv, state.att_shift, state.ffn_shift), (wkv, *shifts)))
    assert state.card.arch == "x070"


def test_our_own_layout_keeps_card_and_shifts_through_a_copy(tmp_path, wkv, shifts):
    card = StateCard("文言文", "x070", "ab" * 32, "g1", "tuned", ("a", "b"), "", ("note",))
    state = State(wkv + 1e-7, att_shift=shifts[0], ffn_shift=shifts[1], card=card)
    back = load_state(convert_state(save_state(state, tmp_path / "a.safetensors"), tmp_path / "b.safetensors"))
    assert all(map(torch.equal, back._tensors(), state._tensors()))
    assert back.card.replace(source="", notes=card.notes) == card
    assert [note.split(",")[0] for note in back.card.notes] == ["note", "largest value 3e+04"]


def test_what_the_card_says_of_the_dtype_is_that_of_the_file(tmp_path, wkv):
    between = convert_state(tuned(wkv, tmp_path / "a.pth"), tmp_path / "b.safetensors")
    assert "stored as bfloat16" in load_state(between).card.notes
    wide = convert_state(between, tmp_path / "c.safetensors", dtype="fp32")
    assert not any("stored as" in note for note in load_state(wide).card.notes)


def test_rounding_is_reported_with_the_largest_relative_error(tmp_path):
    wkv = torch.ones(L, H, N, N)
    wkv[1, 0, 2, 3] = 1 + 2.0**-11 + 2.0**-20  # rounds up to 1 + 2^-10
    source = save_state(State(wkv), tmp_path / "a.pth")
    with pytest.warns(
        UserWarning, match=r"'b\.state': 1 of 96 values were rounded to float16, the worst by 0\.00049 of"
    ):
        convert_state(source, tmp_path / "b.state")
    with pytest.warns(UserWarning, match=r"'b\.pth': 1 of 96 values were rounded to bfloat16, the worst by 0\.00049"):
        convert_state(source, tmp_path / "b.pth", dtype="bf16")
    double = tuned(wkv.double() + 2.0**-40, tmp_path / "d.pth", torch.float64)
    with pytest.warns(UserWarning, match=r"'d\.pth': 96 of 96 values were rounded to float32, the worst by 9\.1e-13"):
        convert_state(double, tmp_path / "e.pth")
    convert_state(tuned(wkv.double(), tmp_path / "d.pth", torch.float64), tmp_path / "f.pth")  # exact: says nothing


def test_what_fp16_cannot_hold_is_refused_or_reported(tmp_path, wkv):
    wkv[1, 0, 0, 0] = 65536.0
    source = tuned(wkv, tmp_path / "a.pth")
    with pytest.raises(SaveError, match=r"'b\.state': layer 1: 65536 is above fp16's 65504"):
        convert_state(source, tmp_path / "b.state")
    assert not (tmp_path / "b.state").exists()
    wkv[1, 0, 0, 0], wkv[1, 0, 0, 1] = 1e-9, 3.1e-7
    source = tuned(wkv, tmp_path / "a.pth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert_state(source, tmp_path / "b.state")
    said = [str(w.message) for w in caught]
    assert any("layer 1: 1 values are too small" in words for words in said)
    assert any("1 of 96 values were rounded to float16, the worst by 0.03" in words for words in said), said


def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path, wkv):
    source, target = tuned(wkv, tmp_path / "a.pth"), tmp_path / "b.pth"
    target.write_bytes(b"mine")
    for there in (target, source):
        with pytest.raises(SaveError, match=r"is there already; choose another name, or pass overwrite=True"):
            convert_state(source, there)
    assert target.read_bytes() == b"mine"
    assert same(pth(convert_state(source, target, overwrite=True)), pth(source))
    before = pth(source)
    assert same(pth(convert_state(source, source, overwrite=True)), before)


def test_a_file_that_appears_meanwhile_is_kept_too(tmp_path, wkv, monkeypatch):
    from rwkvlab.states import convert

    source, target = tuned(wkv, tmp_path / "a.pth"), tmp_path / "b.pth"

    def late(*args, **kwargs):
        target.write_bytes(b"mine")
        return save_state(*args, **kwargs)

    monkeypatch.setattr(convert, "save_state", late)
    with pytest.raises(SaveError, match="is there already"):
        convert_state(source, target)
    assert target.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_gets_the_state_under_a_name_made_of_what_is_known(tmp_path, wkv):
    (tmp_path / "out").mkdir()
    source = tuned(wkv, tmp_path / "rwkv6-world-3b-chn_文言文QA-20241114-ctx2048.pth")
    path = convert_state(source, tmp_path / "out")
    assert path == tmp_path / "out" / "rwkv-x060-World-3B-chn_文言文QA-20241114-ctx2048.safetensors"
    assert torch.equal(load_state(path).wkv, wkv)
    with pytest.raises(SaveError, match="is there already"):
        convert_state(source, tmp_path / "out")


def test_orientation_and_model_are_looked_at(tmp_path, wkv, model):
    source = tuned(wkv, tmp_path / "a.pth")
    turned = convert_state(source, tmp_path / "b.pth", orientation="KV")
    assert torch.equal(load_state(turned).wkv, wkv.mT)
    with pytest.raises(MismatchError, match=r"L=2 \(model 3\)"):
        convert_state(tuned(wkv[:2], tmp_path / "c.pth"), tmp_path / "d.pth", model)
    with pytest.raises(MismatchError, match="made for RWKV-6"):
        convert_state(tuned(wkv, tmp_path / "rwkv6-x.pth"), tmp_path / "d.pth", model)


def test_what_is_no_state_or_no_target_is_refused(tmp_path, wkv):
    torch.save({"emb.weight": torch.ones(9, C), "blocks.0.att.r_k": torch.ones(H, N)}, tmp_path / "m.pth")
    with pytest.raises(MismatchError, match="is a model"):
        convert_state(tmp_path / "m.pth", tmp_path / "b.state")
    source = tuned(wkv, tmp_path / "a.pth")
    for target, error in (("b.gguf", ArgError), ("b", ArgError), ("none/b.pth", PathError), ("a\x1b.pth", PathError)):
        with pytest.raises(error):
            convert_state(source, tmp_path / target)
    with pytest.raises(PathError, match="path: need"):
        convert_state(source, None)
    with pytest.raises(PathError):
        convert_state(tmp_path / "none.pth", tmp_path / "b.pth")
    with pytest.raises(ArgError, match="only one that Ai00 takes"):
        convert_state(source, tmp_path / "b.state", dtype="bf16")
    torch.save([torch.ones(C), torch.ones(H, N, N), torch.ones(C)], tmp_path / "list.pth")
    with pytest.raises(SchemaError, match="orientation"):
        convert_state(tmp_path / "list.pth", tmp_path / "b.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "list.pth", "m.pth"]


def test_a_folder_takes_the_source_s_name_where_nothing_else_is_known(tmp_path, wkv):
    source = tuned(wkv, tmp_path / "rwkv-12.pth")
    path = convert_state(source, tmp_path)
    assert path == tmp_path / "rwkv-12.safetensors" and torch.equal(load_state(path).wkv, load_state(source).wkv)


def test_what_a_card_says_and_the_target_cannot_is_told_once(tmp_path, wkv, recwarn):
    card = StateCard(name="emoji", arch="x070", base="ab" * 32, recipe="tuned")
    known = save_state(State(wkv.float().clamp(-9, 9), card=card), tmp_path / "e.safetensors", dtype="bf16")
    convert_state(known, tmp_path / "whole.safetensors")
    assert not recwarn.list
    with pytest.warns(UserWarning, match="no card: architecture, base model and recipe are lost") as told:
        plain = convert_state(known, tmp_path / "e.pth")
    assert len(told) == 1
    with pytest.warns(UserWarning, match="no card: base model and recipe are lost"):
        convert_state(known, tmp_path / "rwkv-x070-e.pth")
    recwarn.clear()
    with pytest.raises(PathError):
        convert_state(known, tmp_path / "none" / "e.pth")
    convert_state(plain, tmp_path / "again.pth")
    convert_state(plain, tmp_path / "again.safetensors")
    assert not recwarn.list
