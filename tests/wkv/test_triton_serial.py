"""The Triton forward kernels against the float64 truth: on the GPU where there is one, else in Triton's interpreter."""

import importlib
from itertools import pairwise

import pytest
import torch

pytest.importorskip("triton")

from wkv import wkv6, wkv7
from wkv.wkv6.naive import wkv6_naive
from wkv.wkv6.triton_serial import wkv6_serial
from wkv.wkv7.naive import wkv7_naive
from wkv.wkv7.triton_serial import wkv7_serial

triton_serial = importlib.import_module("wkv.wkv7.triton_serial")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# relative RMS against float64 on the same rounded inputs; the interpreter truncates where a GPU rounds: twice the error
OUTPUT = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}
STATE = 1e-5
# between two compilations of one kernel, which may fuse their products and sums differently
SAME = 1e-6
OPERATORS = {"wkv7": (wkv7_serial, wkv7_naive), "wkv6": (wkv6_serial, wkv6_naive)}

both_operators = pytest.mark.parametrize("name", OPERATORS)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh memory is full of NaN: what a kernel leaves unwritten shows."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        x = empty(*args, **kwargs)
        return x.fill_(float("nan")) if x.is_floating_point() else x

    monkeypatch.setattr(torch, "empty", poisoned)


def draw(name, B=1, T=1, H=1, K=16, V=16, *, starts=None, dtype=torch.float32, seed=0):
    """Inputs in `dtype` with log decays of the operator's range, and a non-zero start; on DEVICE."""
    g = torch.Generator().manual_seed(seed)
    keys = [torch.randn(B, T, H, K, generator=g) for _ in range(4)]
    v, s0 = torch.randn(B, T, H, V, generator=g), torch.randn(starts or B, H, V, K, generator=g)
    gate = torch.randn(B, T, H, K, generator=g)
    r, k = keys[0], keys[1]
    if name == "wkv7":
        kk = torch.nn.functional.normalize(keys[2], dim=-1)
        rest = [r, -0.606531 * gate.sigmoid(), k, v, -kk, kk * keys[3].sigmoid()]
    else:
        rest = [r, -gate.exp(), k, v, torch.randn(H, K, generator=g)]
    return [*(x.to(dtype).to(DEVICE) for x in rest), s0.to(DEVICE)]


def truth(name, inputs):
    return OPERATORS[name][1](*(x.double() for x in inputs))


def error(x, want):
    """Relative RMS; NaN anywhere gives NaN, which passes no comparison."""
    assert x.shape == want.shape
    return ((x.double() - want).norm() / want.norm().clamp_min(1e-30)).item() if want.numel() else 0.0


def check(name, inputs):
    y, s, chunks = OPERATORS[name][0](*inputs)
    want_y, want_s = truth(name, inputs)
    assert chunks is None
    assert y.dtype is inputs[3].dtype
    assert s.dtype is torch.float32
    assert error(y, want_y) <= OUTPUT[y.dtype]
    assert error(s, want_s) <= STATE


@both_operators
@pytest.mark.parametrize("T", [0, 1, 7, 17])
def test_any_number_of_tokens_agrees_with_the_truth(name, T):
    check(name, draw(name, B=2, T=T, H=2, K=16, V=24))


@both_operators
@pytest.mark.parametrize("V", [16, 32, 64, 128])
@pytest.mark.parametrize("K", [16, 32, 64, 128])
def test_any_head_size_agrees_with_the_truth(name, K, V):
    check(name, draw(name, T=2, K=K, V=V))


@both_operators
@pytest.mark.parametrize(("K", "V"), [(1, 3), (5, 17), (48, 40), (100, 72)])
def test_head_sizes_that_are_no_power_of_two_agree_with_the_truth(name, K, V):
    check(name, draw(name, B=2, T=3, K=K, V=V))


@both_operators
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_inputs_are_computed_in_fp32(name, dtype):
    check(name, draw(name, T=9, H=3, K=16, V=32, dtype=dtype))


@both_operators
def test_the_decay_may_be_fp32_beside_sixteen_bit_inputs(name):
    inputs = draw(name, T=9, K=32, dtype=torch.bfloat16)
    inputs[1] = draw(name, T=9, K=32)[1]
    check(name, inputs)


@both_operators
def test_inputs_of_any_strides_give_the_same_bits_and_are_not_written_to(name):
    inputs = draw(name, B=2, T=3, H=2, K=16, V=5)
    kept = [x.clone() for x in inputs]
    want = OPERATORS[name][0](*inputs)[:2]
    turned = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in inputs]
    apart = [torch.stack([x, x.neg()], dim=-1)[..., 0] for x in inputs]
    for others in (turned, apart):
        assert not any(x.is_contiguous() for x in others)
        got = OPERATORS[name][0](*others)[:2]
        assert all(torch.equal(x, z) for x, z in zip(got, want, strict=True))
    assert all(torch.equal(x, z) for x, z in zip(inputs, kept, strict=True))


@both_operators
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_equal_separate_ones(name, dtype):
    cu = [0, 3, 3, 4, 11]
    *inputs, s0 = draw(name, T=11, H=2, K=16, V=5, starts=4)
    packed = torch.tensor(cu, dtype=dtype, device=DEVICE)
    y, s, chunks = OPERATORS[name][0](*inputs, s0, cu_seqlens=packed, chunk_states=2)
    kept = []
    for n, (begin, end) in enumerate(pairwise(cu)):
        one = [x[:, begin:end] if x.dim() == 4 else x for x in inputs]
        want_y, want_s, want_chunks = OPERATORS[name][0](*one, s0[n : n + 1], chunk_states=2)
        assert error(y[:, begin:end], want_y.double()) <= SAME
        assert error(s[n : n + 1], want_s.double()) <= SAME
        kept.append(want_chunks)
    assert error(chunks, torch.cat(kept, dim=1).double()) <= SAME


@both_operators
@pytest.mark.parametrize(("T", "every"), [(0, 4), (1, 4), (8, 4), (9, 4), (3, 1), (3, 100)])
def test_chunk_states_are_the_states_before_their_tokens(name, T, every):
    *inputs, s0 = draw(name, B=2, T=T, K=16, V=24)
    chunks = OPERATORS[name][0](*inputs, s0, chunk_states=every)[2]
    assert chunks.shape == (2, -(-T // every), 1, 24, 16)
    for i, state in enumerate(chunks.unbind(1)):
        before = [x[:, : i * every] if x.dim() == 4 else x for x in inputs]
        assert torch.equal(state, OPERATORS[name][0](*before, s0, chunk_states=every)[1])
        assert error(state, truth(name, [*before, s0])[1]) <= STATE


@both_operators
@pytest.mark.parametrize("decay", [0.0, -0.606531, -1e4, -float("inf")])
def test_extreme_decays_give_no_nan(name, decay):
    inputs = draw(name, T=7, K=16)
    inputs[1].fill_(decay)
    check(name, inputs)


@both_operators
def test_no_sequence_at_all_gives_empty_results(name):
    y, s, _ = OPERATORS[name][0](*draw(name, B=0, T=3, H=2))
    assert y.shape == (0, 3, 2, 16)
    assert s.shape == (0, 2, 16, 16)


@pytest.mark.parametrize(
    ("K", "V", "dtype"), [(16, 5, torch.float32), (64, 64, torch.bfloat16), (48, 40, torch.float32)]
)
def test_the_tiles_for_many_heads_agree_with_the_truth_too(monkeypatch, K, V, dtype):
    monkeypatch.setattr(triton_serial, "MANY", 1)
    inputs = draw("wkv7", B=2, T=5, H=2, K=K, V=V, dtype=dtype)
    check("wkv7", inputs)
    chunks = wkv7_serial(*inputs, chunk_states=2)[2]
    for i, state in enumerate(chunks.unbind(1)):
        before = [x[:, : 2 * i] for x in inputs[:-1]]
        assert error(state, truth("wkv7", [*before, inputs[-1]])[1]) <= STATE


@both_operators
def test_the_operators_use_these_kernels_when_told_to(name):
    operator = {"wkv7": wkv7, "wkv6": wkv6}[name]
    *inputs, s0 = draw(name, T=5, starts=2, dtype=torch.bfloat16)
    options = {"cu_seqlens": [0, 2, 5], "chunk_states": 2}
    y, s, chunks = operator(*inputs, s0, **options, backend="triton")
    want_y, want_s, want_chunks = operator(*(x.double() for x in inputs), s0.double(), **options, backend="naive")
    assert error(y, want_y) <= OUTPUT[torch.bfloat16]
    assert error(s, want_s) <= STATE
    assert error(chunks, want_chunks) <= STATE


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="70 000 heads are too many for the interpreter")
@both_operators
def test_more_heads_than_a_grid_axis_holds(name):
    check(name, draw(name, B=2, T=3, H=70_000, K=16, V=16))
