"""States in the memory of other programs come over whole; a wrong size, batch or shape is named."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rwkvlab.errors import ArgError, FormatError, MismatchError, NonFiniteError, PathError, TruncatedError
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard
from rwkvlab.states.files import load_state
from rwkvlab.states.state import State

L, H, V, K = 2, 3, 6, 4
C = H * K


@pytest.fixture
def models():
    def make(arch="x070"):
        dims = Dims(arch, L=L, H=H, C=C, K=K, V=V, ffn=8, vocab=9)
        return SimpleNamespace(dims=dims, card=ModelCard("m", arch, "ab" * 32))

    return make


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(3)
    att, ffn = torch.randn(2, L, C, generator=generator)
    return State(torch.randn(L, H, V, K, generator=generator), att_shift=att, ffn_shift=ffn)


def buffer(state, order="VK"):
    out = []
    for i in range(L):
        heads = state.wkv[i] if order == "VK" else state.wkv[i].mT
        out += [state.ffn_shift[i], state.att_shift[i], heads.reshape(-1)]
    return torch.cat(out).numpy().astype("<f4")


def same(a, b):
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("wkv", "att_shift", "ffn_shift"))


@pytest.mark.parametrize(("arch", "order"), [("x070", "VK"), ("x060", "KV"), ("x052", "KV")])
def test_the_buffer_of_rwkv_cpp_is_read_in_the_order_of_its_version(tmp_path, models, state, arch, order):
    buffer(state, order).tofile(tmp_path / "a.bin")
    back = load_state(tmp_path / "a.bin", models(arch), format="rwkv.cpp")
    assert same(back, state)
    assert back.card.arch == arch
    assert "rwkv.cpp buffer" in back.card.source
    assert "taken from the model" in back.card.notes[0]
    other = "KV" if order == "VK" else "VK"
    buffer(state, other).tofile(tmp_path / "b.bin")
    back = load_state(tmp_path / "b.bin", models(arch), format="rwkv.cpp", orientation=other)
    assert same(back, state)
    assert any("orientation" in note for note in back.card.notes)


def test_a_buffer_needs_a_model_and_the_exact_size(tmp_path, models, state):
    path, raw = tmp_path / "a.bin", buffer(state).tobytes()
    path.write_bytes(raw)
    with pytest.raises(ArgError, match=r'format="rwkv.cpp".*pass the model'):
        load_state(path, format="rwkv.cpp")
    for bad in (raw[:-4], raw + b"1234", raw[:-1], raw * 2, b"PK\x03\x04"):
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=rf"'a\.bin': need 768 bytes .*RWKV-7.*got {len(bad):,}; save the buffer"):
            load_state(path, models(), format="rwkv.cpp")
    path.write_bytes(b"")
    with pytest.raises(TruncatedError, match="empty"):
        load_state(path, models(), format="rwkv.cpp")
    with pytest.raises(PathError, match="a folder"):
        load_state(tmp_path, models(), format="rwkv.cpp")


def test_a_buffer_with_nan_or_a_foreign_name_is_refused(tmp_path, models, state):
    raw = buffer(state)
    raw.tofile(tmp_path / "rwkv6-x.bin")
    with pytest.raises(MismatchError, match="made for RWKV-6"):
        load_state(tmp_path / "rwkv6-x.bin", models(), format="rwkv.cpp")
    raw[-1] = np.nan
    raw.tofile(tmp_path / "a.bin")
    with pytest.raises(NonFiniteError, match=r"'a\.bin': layer 1: 1 of 96 values .* first at \[95\]"):
        load_state(tmp_path / "a.bin", models(), format="rwkv.cpp")


def test_the_format_is_none_or_one_that_is_known(tmp_path, state):
    for wrong in ("ggml", "", "RWKV.CPP", 5):
        with pytest.raises(ArgError, match="format: need None"):
            load_state(tmp_path / "a.bin", format=wrong)


@pytest.mark.parametrize("batched", [True, False])
def test_the_cache_of_fla_is_key_by_value(models, state, batched):
    heads = [layer.mT[None] if batched else layer.mT for layer in state.wkv]  # [B,H,K,V]
    shifts = {"att_shift": list(state.att_shift), "ffn_shift": [x[None, None] for x in state.ffn_shift]}
    back = State.from_fla(heads, like=models(), **shifts)
    assert same(back, state)
    assert back.card.arch == "x070" and back.card.base == "ab" * 32
    bare = State.from_fla(tuple(heads))
    assert torch.equal(bare.wkv, state.wkv)
    assert not bare.has_shifts
    assert torch.equal(State.from_fla(heads, like=state, att_shift=state.att_shift).att_shift, state.att_shift)


def test_gradients_flow_through_a_cache_and_nothing_writes_to_it(models):
    heads = [torch.randn(1, H, K, V, requires_grad=True) for _ in range(L)]
    before = [head.detach().clone() for head in heads]
    State.from_fla(heads, like=models()).wkv.square().sum().backward()
    for head, old in zip(heads, before, strict=True):
        assert torch.equal(head, old)
        assert torch.allclose(head.grad, 2 * old)


def test_a_cache_that_does_not_fit_says_which_tensor_and_why(models):
    head, shift = torch.ones(1, H, K, V), torch.ones(C)
    for tensors, shifts, error, words in (
        ([], {}, ArgError, "one tensor a layer, got list of 0"),
        (None, {}, ArgError, "got NoneType"),
        (torch.ones(L, H, K, V), {}, ArgError, "got Tensor of 2"),
        ([head, None], {}, ArgError, r"tensors\[1\]: need a tensor"),
        ([head, head.int()], {}, ArgError, r"tensors\[1\]: need floating"),
        ([head, torch.ones(2, H, K, V)], {}, MismatchError, r"tensors\[1\]: expected \[B=1,H,K,V\].*row of the batch"),
        ([head, head[..., :3]], {}, MismatchError, r"tensors\[1\]: expected \[3, 4, 6\] as before, got \[3, 4, 3\]"),
        ([head[0, 0]] * 2, {}, MismatchError, r"tensors\[0\]: expected \[B,H,K,V\] or \[H,K,V\], got \[4, 6\]"),
        ([head], {}, MismatchError, r"wkv: expected \[L=2"),
        ([head.mT] * 2, {}, MismatchError, r"wkv: expected \[L=2, H=3, V=6, K=4\], got \[2, 3, 4, 6\]"),
        ([head, head / 0], {}, NonFiniteError, r"tensors\[1\]: 72 of 72"),
        ([head] * 2, {"att_shift": [shift]}, ArgError, "att_shift: need 2 tensors, one a layer, got list of 1"),
        ([head] * 2, {"ffn_shift": shift}, ArgError, "ffn_shift: need 2 tensors"),
        ([head] * 2, {"ffn_shift": "ab"}, ArgError, "ffn_shift: need 2 tensors, one a layer, got str"),
        ([head] * 2, {"ffn_shift": [shift, shift[:5]]}, MismatchError, r"ffn_shift\[1\]: expected \[12\] as before"),
        ([head] * 2, {"ffn_shift": [shift[:5]] * 2}, MismatchError, r"ffn_shift: expected \[L=2, C=12\]"),
        ([head] * 2, {"att_shift": [torch.ones(2, C)] * 2}, MismatchError, r"att_shift\[0\]: expected \[C\]"),
        ([head] * 2, {"att_shift": [shift, shift * torch.nan]}, NonFiniteError, r"att_shift\[1\]"),
    ):
        with pytest.raises(error, match=words):
            State.from_fla(tensors, like=models(), **shifts)
