"""The chunked backends against the float64 truth, whatever the length, the shape, the decay and the packing."""

from itertools import pairwise

import pytest
import torch
from wkv import pieces, wkv6, wkv7

# relative RMS against float64 on the same inputs
FLOAT32 = 2e-6
FLOAT64 = 1e-13
OPERATORS = {"wkv7": wkv7, "wkv6": wkv6}

both_operators = pytest.mark.parametrize("name", OPERATORS)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh memory is full of NaN: what a backend leaves unwritten shows."""
    for maker in (torch, torch.Tensor):
        for name in ("empty", "empty_like", "new_empty"):
            if hasattr(maker, name):
                original = getattr(maker, name)
                monkeypatch.setattr(maker, name, lambda *a, make=original, **k: make(*a, **k).fill_(float("nan")))


def draw(name, B=1, T=1, H=2, K=16, V=8, *, starts=None, dtype=torch.float64, scale=1.0, seed=0):
    """Inputs with log decays of the model's range times `scale`, keys a model could have, and a non-zero start."""
    g = torch.Generator().manual_seed(seed)
    r, k, gate, key, rate = (torch.randn(B, T, H, K, generator=g, dtype=torch.float64) for _ in range(5))
    v = torch.randn(B, T, H, V, generator=g, dtype=torch.float64)
    s0 = torch.randn(starts or B, H, V, K, generator=g, dtype=torch.float64)
    if name == "wkv7":
        kk = torch.nn.functional.normalize(key, dim=-1)
        rest = [r, -0.606531 * scale * gate.sigmoid(), k, v, -kk, kk * rate.sigmoid()]
    else:
        rest = [r, -scale * (gate - 1).exp(), k, v, torch.randn(H, K, generator=g, dtype=torch.float64)]
    return [x.to(dtype) for x in (*rest, s0)]


def run(name, inputs, backend="chunked", **options):
    return OPERATORS[name](*inputs, backend=backend, **options)


def truth(name, inputs, **options):
    return run(name, [x.double() for x in inputs], "naive", **options)


def error(x, want):
    """Relative RMS (the RMS itself where zeros are wanted); NaN anywhere gives NaN, which passes no comparison."""
    assert x.shape == want.shape
    off, size = (x.double() - want).norm(), want.norm()
    return float(off / size if size > 0 else off)


def gradients(name, inputs, backend, **options):
    """Gradients of a fixed mixture of all outputs in all inputs."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs = run(name, inputs, backend, **options)
    g = torch.Generator().manual_seed(1)
    mixture = sum((x.double() * torch.randn(x.shape, generator=g, dtype=torch.float64)).sum() for x in outputs)
    return torch.autograd.grad(mixture, inputs)


@both_operators
@pytest.mark.parametrize("T", [0, 1, 7, 63, 64, 65, 1000])
def test_any_length_agrees_with_the_truth(name, T):
    for shape in ({"K": 16, "V": 8}, {"B": 2, "K": 8, "V": 24}):
        inputs = draw(name, T=T, **shape)
        for dtype, bound in ((torch.float64, FLOAT64), (torch.float32, FLOAT32)):
            rounded = [x.to(dtype) for x in inputs]
            for x, want in zip(run(name, rounded), truth(name, rounded), strict=True):
                assert x.dtype == dtype
                assert error(x, want) <= bound


@both_operators
@pytest.mark.parametrize("T", [1, 7, 65])
def test_gradients_agree_with_the_truth_in_every_input(name, T):
    inputs = draw(name, B=2, T=T, dtype=torch.float32)
    want = gradients(name, [x.double() for x in inputs], "naive")
    for x, right in zip(gradients(name, inputs, "chunked"), want, strict=True):
        assert error(x, right) <= FLOAT32


@both_operators
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_gradcheck(name, scale, monkeypatch):
    monkeypatch.setattr(pieces, "SLAB", 1)
    for options in ({"chunk_states": 8}, {"cu_seqlens": [0, 3, 3, 19]}):
        inputs = draw(name, T=19, H=1, K=4, V=3, starts=3 if "cu_seqlens" in options else 1, scale=scale)
        inputs = [x.requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(lambda *xs, o=options: run(name, xs, **o), inputs, fast_mode=True)


@both_operators
@pytest.mark.parametrize("w", [0.0, -0.60653066, -0.62, -5.0, -20.0, -1e4, -torch.inf, "mixed"], ids=lambda w: f"w={w}")
def test_extreme_decays_are_exact_forward_and_backward(name, w):
    inputs = draw(name, T=70, dtype=torch.float32)
    if w == "mixed":  # one channel forgets all at once now and then, and remembers well in between
        inputs[1][:, ::5, :, ::2] = -1e4
        inputs[1][:, 3::7, :, 1::4] = -torch.inf
    else:
        inputs[1] = torch.full_like(inputs[1], w)
    for x, want in zip(run(name, inputs), truth(name, inputs), strict=True):
        assert error(x, want) <= FLOAT32
    want = gradients(name, [x.double() for x in inputs], "naive")
    for x, right in zip(gradients(name, inputs, "chunked"), want, strict=True):
        assert error(x, right) <= FLOAT32


def test_the_same_key_again_and_again_loses_no_digits():
    """The triangle is then full of ones: sums of its powers would cancel numbers of a thousand and more."""
    inputs = draw("wkv7", T=64, dtype=torch.float32)
    inputs[1] = torch.zeros_like(inputs[1])
    inputs[4] = inputs[4][:, :1].expand_as(inputs[4])
    inputs[5] = -inputs[4]
    for x, want in zip(run("wkv7", inputs), truth("wkv7", inputs), strict=True):
        assert error(x, want) <= FLOAT32


@both_operators
def test_inputs_need_not_be_contiguous(name):
    inputs = draw(name, B=2, T=40)
    want = run(name, inputs)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    spaced = [torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0] for x in inputs]
    for strange in (turned, spaced):
        assert not any(x.is_contiguous() for x in strange)
        for x, right in zip(run(name, strange), want, strict=True):
            assert error(x, right) <= FLOAT64
    broadcast = [x[:1, :1].expand_as(x) if x.dim() == 4 and x.shape[1] == 40 else x for x in inputs]
    for x, right in zip(run(name, broadcast), truth(name, broadcast), strict=True):
        assert error(x, right) <= FLOAT64


@both_operators
def test_split_anywhere_equals_whole(name):
    *inputs, s0 = draw(name, B=2, T=67)
    timed = [x for x in inputs if x.dim() == 4]
    y, s = run(name, [*inputs, s0])
    for cut in (1, 15, 16, 17, 40, 64, 66):
        first, second = ([x[:, at] for x in timed] + inputs[len(timed) :] for at in (slice(cut), slice(cut, None)))
        y0, middle = run(name, [*first, s0])
        y1, end = run(name, [*second, middle])
        assert error(torch.cat([y0, y1], dim=1), y) <= FLOAT64
        assert error(end, s) <= FLOAT64


@both_operators
def test_the_start_superposes(name):
    """y and s are affine in s0: the weights of the starts carry over, the rest falls to the zero start."""
    *inputs, s0 = draw(name, T=50)
    other = draw(name, T=50, seed=5)[-1]
    at = [run(name, [*inputs, start]) for start in (0 * s0, s0, other, 2 * s0 - 3 * other)]
    for zero, one, two, both in zip(*at, strict=True):
        assert error(both, 2 * one - 3 * two + 2 * zero) <= FLOAT64


@both_operators
@pytest.mark.parametrize("slab", [1, 1 << 11, pieces.SLAB])
def test_packed_equals_separate(name, slab, monkeypatch):
    monkeypatch.setattr(pieces, "SLAB", slab)
    ends = [0, 7, 7, 39, 103, 104]
    *inputs, s0 = draw(name, T=ends[-1], starts=5)
    for every in (None, 16, 10):
        found = run(name, [*inputs, s0], cu_seqlens=ends, chunk_states=every)
        separate = []
        for i, (begin, end) in enumerate(pairwise(ends)):
            alone = [x[:, begin:end] if x.dim() == 4 else x for x in inputs]
            separate.append(run(name, [*alone, s0[i : i + 1]], "naive", chunk_states=every))
        for x, parts, axis in zip(found, zip(*separate, strict=True), (1, 0, 1), strict=False):
            assert error(x, torch.cat(parts, dim=axis)) <= FLOAT64


@both_operators
@pytest.mark.parametrize("every", [1, 10, 16, 24, 64, 200])
@pytest.mark.parametrize("T", [0, 64, 150])
def test_chunk_states_are_the_states_on_the_way(name, every, T):
    *inputs, s0 = draw(name, B=2, T=T)
    y, s, kept = run(name, [*inputs, s0], chunk_states=every)
    assert kept.shape == (2, -(-T // every), *s0.shape[1:])
    want = truth(name, [*inputs, s0])
    assert error(y, want[0]) <= FLOAT64
    assert error(s, want[1]) <= FLOAT64
    for i in range(kept.shape[1]):
        before = [x[:, : i * every] if x.dim() == 4 else x for x in inputs]
        assert error(kept[:, i], truth(name, [*before, s0])[1]) <= FLOAT64


@both_operators
def test_work_in_many_slabs_is_work_in_one(name, monkeypatch):
    inputs = draw(name, B=3, T=100)
    whole = gradients(name, inputs, "chunked", chunk_states=10)
    monkeypatch.setattr(pieces, "SLAB", 1)
    for x, want in zip(gradients(name, inputs, "chunked", chunk_states=10), whole, strict=True):
        assert error(x, want) <= FLOAT64


@both_operators
def test_a_second_run_is_bit_identical(name):
    inputs = draw(name, T=100, dtype=torch.float32)
    for x, again in zip(run(name, inputs), run(name, inputs), strict=True):
        assert torch.equal(x, again)
