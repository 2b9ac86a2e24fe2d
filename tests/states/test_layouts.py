"""A file tells by its keys, dtypes and metadata what kind of state it holds; what is none is refused by its name."""

import pytest
import torch
from safetensors.torch import save_file

from rwkvlab.errors import ArgError, FormatError, MismatchError, PathError, SchemaError, UnsafeFileError
from rwkvlab.states.files import load_state

L, H, N = 3, 2, 4


def key(layer):
    return f"blocks.{layer}.att.time_state"


@pytest.fixture
def wkv():
    """[L,H,V,K] of numbers that fp16 and bf16 hold exactly, no head its own transpose."""
    return torch.randint(-100, 100, (L, H, N, N), generator=torch.Generator().manual_seed(0)) / 8


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
        ([key(0), key(2)], "layers 1 are missing below layer 2"),
        ([key(1)], "layers 0 are missing"),
        ([key(9999)], "layers 0 are missing below layer 9999"),
        (["blocks.00.att.time_state"], "odd keys"),
        (["blocks.\u0660.att.time_state"], "odd keys"),
        (["blocks.+0.att.time_state", key(1)], "not part of a state"),
        ([key(0), key(0) + "\n"], "not part of a state"),
        ([key(0), "extra"], "'extra'"),
        ([key(0), "<b>\x1b[2J"], r"\\x1b"),
    ):
        with pytest.raises(SchemaError, match=words):
            load_state(refused(tmp_path / "x.pth", {name: square.clone() for name in names}))
