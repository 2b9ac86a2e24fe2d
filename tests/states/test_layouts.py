"""A file tells by its keys, dtypes and metadata what kind of state it holds; what is none is refused by its name."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from rwkvlab.errors import (
    ArgError,
    FormatError,
    MismatchError,
    NonFiniteError,
    PathError,
    SchemaError,
    UnsafeFileError,
)
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard
from rwkvlab.states.files import load_state, peek_state, save_state
from rwkvlab.states.layouts import USUAL

L, H, N = 3, 2, 4


def key(layer):
    return f"blocks.{layer}.att.time_state"


@pytest.fixture
def wkv():
    """[L,H,V,K] of numbers that fp16 and bf16 hold exactly, no head its own transpose."""
    return torch.randint(-100, 100, (L, H, N, N), generator=torch.Generator().manual_seed(0)) / 8


@pytest.fixture
def models():
    """models(arch) -> something with the dims and card of a model that `wkv` fits."""

    def make(arch):
        dims = Dims(arch, L=L, H=H, C=H * N, K=N, V=N, ffn=4 * H * N, vocab=50)
        return SimpleNamespace(dims=dims, card=ModelCard("m", arch, "ab" * 32))

    return make


def tuned(wkv, path, dtype=torch.bfloat16):
    torch.save({key(layer): wkv[layer].to(dtype).clone() for layer in range(len(wkv))}, path)
    return path


def ai00(wkv, path, dtype=torch.float16, metadata=None):
    layers = {key(layer): wkv[layer].to(dtype).transpose(1, 2).contiguous() for layer in range(len(wkv))}
    save_file(layers, path, {"format": "pt"} if metadata is None else metadata)
    return path


def refused(path, value):
    torch.save(value, path)
    return path


def test_a_converted_pth_is_not_turned_and_says_so(tmp_path, wkv):
    path = tmp_path / "a.safetensors"
    save_file({key(i): wkv[i].bfloat16() for i in range(L)}, path)
    state = load_state(path)
    assert torch.equal(state.wkv, wkv)
    assert any("[H,V,K]" in note for note in state.card.notes)


def test_what_may_be_either_way_round_asks_for_the_orientation(tmp_path, wkv):
    half, wide = tmp_path / "half.safetensors", tmp_path / "wide.state"
    save_file({key(i): wkv[i].half() for i in range(L)}, half)
    save_file({key(i): wkv[i] for i in range(L)}, wide)
    for path in (half, wide):
        with pytest.raises(SchemaError, match="orientation='KV'"):
            load_state(path)
        assert torch.equal(load_state(path, orientation="VK").wkv, wkv)
        assert torch.equal(load_state(path, orientation="KV").wkv, wkv.transpose(2, 3))


def test_orientation_overrides_what_the_file_seems_to_be(tmp_path, wkv):
    pth, state = tuned(wkv, tmp_path / "a.pth"), ai00(wkv, tmp_path / "a.state")
    assert torch.equal(load_state(pth, orientation="KV").wkv, wkv.transpose(2, 3))
    assert torch.equal(load_state(pth, orientation="VK").wkv, wkv)
    turned = load_state(state, orientation="VK")
    assert torch.equal(turned.wkv, wkv.transpose(2, 3))
    assert any("orientation" in note for note in turned.card.notes)
    with pytest.raises(ArgError, match="orientation"):
        load_state(pth, orientation="HVK")


def test_the_state_of_a_merged_checkpoint_is_found(tmp_path, wkv):
    path = tmp_path / "merged.pth"
    weights = {"emb.weight": torch.ones(5, 8), "blocks.0.att.time_maa_x": torch.ones(1, 1, 8)}
    torch.save(weights | {key(i): wkv[i].clone() for i in range(L)}, path)
    state = load_state(path)
    assert torch.equal(state.wkv, wkv)
    assert state.card.arch == "x060"
    assert any("merged" in note for note in state.card.notes)
    gate = {"blocks.0.att.gate.weight": torch.ones(8, 8)}
    for decay, arch in (((2, 4), "x052"), ((2, 1), ""), ((2,), ""), ((8,), "")):
        old = {"emb.weight": torch.ones(5, 8), "blocks.0.att.time_decay": torch.ones(decay)}
        torch.save(old | gate | {key(i): wkv[i].clone() for i in range(L)}, path)
        assert load_state(path).card.arch == arch, decay  # RWKV-5.1 is none that is run here


def test_an_orientation_that_nothing_tells_is_noted_unless_it_was_given(tmp_path, wkv):
    weights = {"emb.weight": torch.ones(5, 8), "blocks.0.att.r_k": torch.ones(2, 4)}
    torch.save(weights | {key(i): wkv[i].clone() for i in range(L)}, tmp_path / "merged.pth")
    for path in (tuned(wkv, tmp_path / "a.pth"), tmp_path / "merged.pth"):
        assert f"orientation VK {USUAL}" in load_state(path).card.notes
        assert peek_state(path)[0].notes == load_state(path).card.notes
        for order in ("VK", "KV"):
            assert not any(note.endswith(USUAL) for note in load_state(path, orientation=order).card.notes)
    kept = save_state(load_state(tmp_path / "a.pth"), tmp_path / "own.safetensors")
    assert f"orientation VK {USUAL}" in load_state(kept).card.notes
    for path in (ai00(wkv, tmp_path / "a.state"), run_time(wkv, tmp_path / "rwkv7-x.pth")):
        assert not any(note.endswith(USUAL) for note in load_state(path).card.notes)


def test_files_that_hold_something_else_are_refused_by_what_they_are(tmp_path, wkv):
    x = torch.ones(2)
    for value, error, words in (
        ({"emb.weight": x, "blocks.0.att.r_k": x}, MismatchError, "a model .RWKV-7 weights.*load_model"),
        ({"emb.weight": x, "blocks.0.att.time_maa_x": x}, MismatchError, "RWKV-6 weights"),
        ({"blocks.0.att.receptance.lora_A": x}, MismatchError, "LoRA"),
        ({"blocks.0.att.wkvstate": x}, SchemaError, "wkvstate"),
        ({"blocks.0.att.time_offset": x}, SchemaError, "time_offset"),
        ({"a": x, "b": x}, SchemaError, "holds no state.*'a', 'b'"),
        ([x, x, x], SchemaError, "list of 3 tensors"),
    ):
        with pytest.raises(error, match=words) as caught:
            load_state(refused(tmp_path / "x.pth", value))
        assert "'x.pth'" in str(caught.value)
    (tmp_path / "p.state").write_bytes(b"\x80\x02cos\nsystem\n.")
    with pytest.raises(FormatError, match="is a pickle"):
        load_state(tmp_path / "p.state")
    (tmp_path / "p.pth").write_bytes(b"\x80\x02cos\nsystem\n.")
    with pytest.raises(UnsafeFileError):
        load_state(tmp_path / "p.pth")
    with pytest.raises(PathError, match="no such file"):
        load_state(tmp_path / "none.pth")


def test_layers_must_be_whole_and_named_in_plain_digits(tmp_path, wkv):
    square = wkv[0].clone()
    for names, words in (
        ([key(0), key(2)], "layer 1 is missing below layer 2"),
        ([key(1)], "layer 0 is missing"),
        ([key(9999)], "layer 0 is missing below layer 9999"),
        (["blocks.00.att.time_state"], "odd keys"),
        (["blocks.\u0660.att.time_state"], "odd keys"),
        (["blocks.+0.att.time_state", key(1)], "not part of a state"),
        ([key(0), key(0) + "\n"], "not part of a state"),
        ([key(0), "extra"], "'extra'"),
        ([key(0), "<b>\x1b[2J"], r"\\x1b"),
    ):
        with pytest.raises(SchemaError, match=words):
            load_state(refused(tmp_path / "x.pth", {name: square.clone() for name in names}))


def run_time(wkv, path, width=None):
    """The 3L list as it lies in memory: attention shift, matrices, ffn shift of each layer."""
    heads, _, keys = wkv[0].shape
    shift = torch.arange(float(heads * keys if width is None else width))
    torch.save([part for i, layer in enumerate(wkv) for part in (shift + i, layer.clone(), -shift - i)], path)
    return path


def test_a_run_time_list_is_turned_as_its_architecture_wants(tmp_path, wkv, models):
    silent = run_time(wkv, tmp_path / "list.pth")
    for arch, want in (("x070", wkv), ("x060", wkv.mT), ("x052", wkv.mT)):
        state = load_state(silent, models(arch))
        assert torch.equal(state.wkv, want)
        assert torch.equal(state.att_shift, torch.arange(8.0) + torch.arange(3.0)[:, None])
        assert torch.equal(state.ffn_shift, -state.att_shift)
        assert state.card.arch == arch
        assert "taken from the model" in state.card.notes[0]
        assert "run-time list" in state.card.source
    named = run_time(wkv, tmp_path / "rwkv7-g1-x.pth")
    assert torch.equal(load_state(named).wkv, wkv)
    assert load_state(named).card.arch == "x070"
    old = run_time(wkv, tmp_path / "RWKV-6-x.pt")
    assert torch.equal(load_state(old).wkv, wkv.mT)
    with pytest.raises(MismatchError, match=r"made for RWKV-6.*RWKV-7"):
        load_state(old, models("x070"))


def test_a_run_time_list_that_nothing_tells_about_asks_for_the_model(tmp_path, wkv):
    path = run_time(wkv, tmp_path / "list.pth")
    with pytest.raises(SchemaError, match=r"'list\.pth': .*pass model=, or orientation='VK' for RWKV-7, 'KV'"):
        load_state(path)
    with pytest.raises(SchemaError, match="pass model="):
        peek_state(path)
    assert torch.equal(load_state(path, orientation="VK").wkv, wkv)
    turned = load_state(path, orientation="KV")
    assert torch.equal(turned.wkv, wkv.mT)
    assert turned.card.arch == ""


def test_orientation_overrides_the_run_time_order(tmp_path, wkv, models):
    state = load_state(run_time(wkv, tmp_path / "list.pth"), models("x070"), orientation="KV")
    assert torch.equal(state.wkv, wkv.mT)
    assert any("orientation=KV was given" in note for note in state.card.notes)


def test_a_run_time_list_with_oblong_heads_keeps_its_axes(tmp_path):
    wkv = torch.randn(2, 2, 6, 4)
    assert load_state(run_time(wkv, tmp_path / "a.pth"), orientation="VK").wkv.shape == (2, 2, 6, 4)
    with pytest.raises(
        MismatchError, match=r"'a\.pth': item 0 of its list: expected a token-shift \[C=12\].*\[8\].*'VK'$"
    ):
        load_state(tmp_path / "a.pth", orientation="KV")
    old = run_time(wkv.mT, tmp_path / "rwkv7-old.pth", width=8)
    with pytest.raises(MismatchError, match=r"\[C=12\].*\(VK\), got \[8\]; .* as it was, or pass orientation='KV'$"):
        load_state(old)
    assert torch.equal(load_state(old, orientation="KV").wkv, wkv)
    with pytest.raises(MismatchError, match=r"got \[9\]; save the list as it was$"):
        load_state(run_time(wkv, tmp_path / "a.pth", width=9), orientation="VK")
    assert peek_state(run_time(wkv, tmp_path / "rwkv7-x.pth"))[1] == (2, 2, 6, 4)


def test_the_suffix_of_a_run_time_list_means_nothing(tmp_path, wkv, models):
    for suffix in (".state", ".safetensors", ".bin", ""):
        assert torch.equal(load_state(run_time(wkv, tmp_path / f"a{suffix}"), models("x070")).wkv, wkv)


def test_lists_that_are_no_run_time_state_say_what_is_wrong(tmp_path, models):
    c, heads, nan = torch.ones(8), torch.ones(2, 4, 4), torch.tensor([1.0, float("nan")] * 4)
    for value, error, words in (
        ([c] * 15, SchemaError, "run-time state of RWKV-4 .a list of 5 vectors a layer"),
        ([c] * 10, SchemaError, "RWKV-4"),
        ([c, heads, c, c], SchemaError, "list of 4 tensors, need 3 a layer"),
        ([c, heads], SchemaError, "list of 2 tensors"),
        ([heads, c, c], SchemaError, "list of 3 tensors"),
        ([c, heads, c, c, c, c], MismatchError, r"item 4 of its list: expected \[2, 4, 4\].*got \[8\]"),
        ([c, heads, c, c, heads[:, :2], c], MismatchError, r"item 4 of its list: .*got \[2, 2, 4\]"),
        ([c, heads, c, c, heads, c[:7]], MismatchError, r"item 5 of its list: .*C=8.*got \[7\]"),
        ([c, heads, c[None]], MismatchError, r"item 2 of its list: .*got \[1, 8\]"),
        ([c, torch.ones(2, 0, 4), c], MismatchError, r"item 1 of its list: expected \[H,V,K\]"),
        ([c, heads, nan], NonFiniteError, r"item 2 of its list: 4 of 8 values .* first at \[1\]"),
        ([c, heads / 0, c], NonFiniteError, "item 1 of its list: 32 of 32"),
        ([c, heads.long(), c], SchemaError, "LongStorage"),
        ([c, None, c], FormatError, "item 1 of its list: is a NoneType"),
    ):
        # each tensor its own, as in a real list
        own = [tensor.clone() if tensor is not None else None for tensor in value]
        with pytest.raises(error, match=words) as caught:
            load_state(refused(tmp_path / "x.pth", own), models("x070"))
        assert "'x.pth'" in str(caught.value)
    with pytest.raises(MismatchError, match=r"L=1 \(model 3\)"):
        load_state(refused(tmp_path / "x.pth", [c, heads, c.clone()]), models("x070"))


def test_a_dict_with_numbers_for_names_is_no_list(tmp_path, wkv, models):
    path = tmp_path / "a.safetensors"
    save_file({str(i): torch.ones(8) for i in range(3)}, path)
    with pytest.raises(SchemaError, match="holds no state"):
        load_state(path, models("x070"))
