"""The fused kernels of an RWKV-7 layer against their plain twins in float64, on odd and on official sizes."""

import pytest
import torch

pytest.importorskip("triton")

from layer_cases import DEVICE, GN, LN, RANKS, agree, drawer, dtypes, exact, gate_inputs
from wkv.layer import api, naive
from wkv.layer.triton_decode import decode_one_triton, decode_triton, read_out_triton
from wkv.layer.triton_gates import gates_triton
from wkv.layer.triton_matrix import gemv_triton, lora_down_triton
from wkv.layer.triton_mix import norm_mix_triton, squared_relu_triton


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh memory is full of NaN: what a kernel leaves unwritten shows."""
    empty, empty_like = torch.empty, torch.empty_like

    def poisoned(make):
        def filled(*args, **kwargs):
            x = make(*args, **kwargs)
            return x.fill_(float("nan")) if x.is_floating_point() else x

        return filled

    monkeypatch.setattr(torch, "empty", poisoned(empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(empty_like))


@pytest.fixture
def draw():
    return drawer()


@dtypes
@pytest.mark.parametrize(("B", "T", "C", "n"), [(1, 1, 80, 6), (3, 1, 48, 1), (2, 7, 80, 6), (1, 65, 16, 1)])
def test_norm_shift_and_mixes(draw, dtype, B, T, C, n):
    x, previous, weight, bias, mix = (draw(*s, dtype=dtype) for s in ((B, T, C), (B, C), (C,), (C,), (n, C)))
    want, last = naive.norm_mix_naive(*exact(x, previous, weight, bias, mix), LN)
    before = previous.clone()
    mixed, z = norm_mix_triton(x, previous, weight, bias, mix, LN)
    agree(mixed, want, dtype)
    agree(z, last, dtype)
    assert previous.equal(before) and mixed.dtype is z.dtype is dtype
    if T == 1:
        _, same = norm_mix_triton(x, previous, weight, bias, mix, LN, in_place=True)
        assert same is previous and previous.equal(z)


@dtypes
@pytest.mark.parametrize("M", [1, 17, 65])
def test_low_rank_maps_downwards(draw, dtype, M):
    C = 80
    mixed, down = draw(6, M, C, dtype=dtype), draw(sum(RANKS), C, dtype=dtype) / 8
    agree(lora_down_triton(mixed, down, RANKS), naive.lora_down_naive(*exact(mixed, down), RANKS), dtype)


@dtypes
@pytest.mark.parametrize(("M", "H", "K"), [(1, 5, 16), (3, 2, 64), (33, 3, 32), (17, 4, 24)])
def test_gates(draw, dtype, M, H, K):
    k, v, first, act, up, vectors = gate_inputs(draw, dtype, M, H, K)
    for v_first in (None, first):
        want = naive.gates_naive(*exact(k, v, v_first, act, up, vectors), RANKS, K)
        got = gates_triton(k, v, v_first, act, up, vectors, RANKS, K)
        assert got[0].dtype is torch.float32
        for x, y in zip(got, want, strict=True):
            agree(x, y, dtype)
    assert float(got[0].max()) <= 0 and float(got[0].min()) >= -0.606532


def test_a_key_of_zeros_stays_one(draw):
    k, v, first, act, up, vectors = gate_inputs(draw, torch.float16, 2, 2, 16)
    _, k, _, a, b, _ = gates_triton(0 * k, v, first, act, up, vectors, RANKS, 16)
    assert not any(x.any() for x in (k, a, b))


@dtypes
@pytest.mark.parametrize(("M", "H", "K"), [(1, 5, 16), (33, 2, 64), (65, 3, 24)])
def test_read_out(draw, dtype, M, H, K):
    inputs = [draw(M, H * K, dtype=dtype) for _ in range(5)]
    vectors = draw(8, H * K, dtype=dtype)
    want = naive.read_out_naive(*exact(*inputs, vectors), K, GN)
    agree(read_out_triton(*inputs, vectors, K, GN), want, dtype)


@dtypes
@pytest.mark.parametrize(("B", "H", "K"), [(1, 5, 16), (3, 2, 64), (2, 3, 24)])
def test_a_token_through_the_heads(draw, dtype, B, H, K):
    k, v, first, act, up, vectors = gate_inputs(draw, dtype, B, H, K)
    r, s = draw(B, H * K, dtype=dtype), draw(B, H, K, K)
    w, k_, v_, a, b, g = naive.gates_naive(k, v, first, act, up, vectors, RANKS, K)
    want_s, state = s.double(), s.clone()
    want = naive.decode_naive(*exact(r, w, k_, v_, a, b, g), want_s, vectors.double(), GN)
    place = state.data_ptr()
    agree(decode_triton(r, w, k_, v_, a, b, g, state, vectors, GN), want, dtype)
    agree(state, want_s, torch.float32)
    assert state.data_ptr() == place


@dtypes
@pytest.mark.parametrize(("B", "H", "K"), [(1, 5, 16), (3, 2, 64), (2, 3, 24)])
def test_a_token_with_its_gates(draw, dtype, B, H, K):
    k, v, first, act, up, vectors = gate_inputs(draw, dtype, B, H, K)
    C = H * K
    rows = torch.cat((draw(B, C, dtype=dtype), k, v, act), dim=-1)
    layer0 = torch.cat((k, k, first, act), dim=-1)[:, 2 * C : 3 * C]  # a view, as layer 0 gives it
    s = draw(B, H, K, K)
    for v_first in (None, layer0):
        want_s, state = s.double(), s.clone()
        want = naive.decode_one_naive(*exact(rows, v_first, up), want_s, vectors.double(), RANKS, GN)
        agree(decode_one_triton(rows, v_first, up, state, vectors, RANKS, GN), want, dtype)
        agree(state, want_s, torch.float32)


@dtypes
@pytest.mark.parametrize(("N", "C"), [(96, 80), (50, 16), (7, 2100)])
def test_one_token_times_a_matrix(draw, dtype, N, C):
    x, weight, onto = draw(1, C, dtype=dtype), draw(N, C, dtype=dtype) / C**0.5, draw(1, N, dtype=dtype)
    agree(gemv_triton(x, weight), naive.gemv_naive(*exact(x, weight)), dtype)
    agree(gemv_triton(x, weight, square=True), naive.gemv_naive(*exact(x, weight), square=True), dtype)
    wide = gemv_triton(x, weight, dtype=torch.float32)
    assert wide.dtype is torch.float32
    agree(wide, naive.gemv_naive(*exact(x, weight)), torch.float32)
    want = naive.gemv_naive(*exact(x, weight), onto=onto.double())
    assert gemv_triton(x, weight, onto=onto) is onto
    agree(onto, want, dtype)


@dtypes
def test_one_token_times_all_maps_of_a_layer(draw, dtype):
    C = 80
    x, weight = draw(6, C, dtype=dtype), draw(3 * C + sum(RANKS), C, dtype=dtype) / 8
    agree(gemv_triton(x, weight, ranks=RANKS), naive.gemv_naive(*exact(x, weight), ranks=RANKS), dtype)


def test_squared_relu_is_in_place(draw):
    x = draw(3, 2100)
    want = torch.relu(x).square()
    assert squared_relu_triton(x) is x and torch.allclose(x, want)


def test_without_a_gpu_the_twins_compute(draw):
    if DEVICE == "cuda":
        pytest.skip("there is one")
    x, weight = draw(1, 16), draw(7, 16)
    assert api.gemv(x, weight).equal(naive.gemv_naive(x, weight))
    previous = draw(1, 16)
    _, last = api.norm_mix(x[None], previous, weight[0], weight[1], weight[:1], eps=LN, in_place=True)
    assert last is previous
    assert not api.fits(torch.device("cpu"), 64, 16, 16)
