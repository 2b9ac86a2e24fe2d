"""The gradients of the fused parts of an RWKV-7 layer against autograd through their plain twins in float64."""

import pytest
import torch

pytest.importorskip("triton")

from layer_cases import DEVICE, GN, LN, RANKS, agree, drawer, dtypes, exact, gate_inputs
from wkv.layer import back, naive, naive_back
from wkv.layer.triton_gates_back import gates_back_triton, read_out_back_triton
from wkv.layer.triton_matrix import lora_back_triton
from wkv.layer.triton_mix_back import norm_mix_back_triton, squared_relu_back_triton

pytestmark = pytest.mark.usefixtures("poison")


@pytest.fixture
def draw():
    return drawer()


@dtypes
@pytest.mark.parametrize(("B", "T", "C", "n"), [(1, 2, 80, 6), (2, 7, 80, 6), (3, 5, 48, 1), (1, 65, 16, 1)])
@pytest.mark.parametrize("ends", [False, True])
def test_norm_shift_and_mixes(draw, dtype, B, T, C, n, ends):
    x, weight, mix, onto = (draw(*shape, dtype=dtype) for shape in ((B, T, C), (C,), (n, C), (B, T, C)))
    dmixed, dlast = draw(n, B, T, C, dtype=dtype), draw(B, C, dtype=dtype) if ends else None
    given = (x, weight, mix, dmixed, dlast, onto)
    got, want = norm_mix_back_triton(*given, LN), naive_back.norm_mix_back_naive(*exact(*given), LN)
    for found, right in zip(got, want, strict=True):
        agree(found, right, dtype)


def slopes_of_gates(draw, dtype, M, C):
    return draw(M, C), *(draw(M, C, dtype=dtype) for _ in range(4))


def run_gates_back(function, given, ranks, K, w, slopes):
    """The gradients of k, v, v_first and of what the maps upwards give for v w a."""
    into = [torch.full_like(given[0], torch.nan) for _ in range(2)]
    low = torch.full((4, *given[0].shape), torch.nan, dtype=given[0].dtype, device=given[0].device)
    first = function(*given, ranks, K, w, *slopes, tuple(into), low)
    assert low[3].isnan().all()
    return [*into, *low[:3], *([] if first is None else [first])]


@dtypes
@pytest.mark.parametrize(("M", "H", "K"), [(1, 5, 16), (3, 2, 64), (33, 3, 32), (17, 4, 24)])
@pytest.mark.parametrize("later", [False, True])
def test_gates(draw, dtype, M, H, K, later):
    k, v, first, act, up, vectors = gate_inputs(draw, dtype, M, H, K)
    given = k, v, first if later else None, act, up, vectors
    slopes = slopes_of_gates(draw, dtype, M, H * K)
    w = naive.gates_naive(*exact(*given), RANKS, K)[0]
    want = run_gates_back(naive_back.gates_back_naive, exact(*given), RANKS, K, w, exact(*slopes))
    got = run_gates_back(gates_back_triton, given, RANKS, K, w.float(), slopes)
    assert len(got) == 5 + later
    for at, (x, y) in enumerate(zip(got, want, strict=True)):
        if at == 2 and not later:
            assert not x.any() and not y.any()
        else:
            agree(x, y, dtype)


@dtypes
def test_a_key_of_zeros_gets_no_gradient_through_its_direction(draw, dtype):
    M, H, K = 3, 2, 16
    k, *others = gate_inputs(draw, dtype, M, H, K)
    k[1, :K] = 0
    slopes = slopes_of_gates(draw, dtype, M, H * K)
    w = naive.gates_naive(*exact(k, *others), RANKS, K)[0]
    want = run_gates_back(naive_back.gates_back_naive, exact(k, *others), RANKS, K, w, exact(*slopes))
    got = run_gates_back(gates_back_triton, (k, *others), RANKS, K, w.float(), slopes)
    assert 0 < float(want[0][1, :K].abs().max()) < 100
    agree(got[0], want[0], dtype)


@dtypes
@pytest.mark.parametrize("M", [1, 17, 65])
def test_low_rank_maps(draw, dtype, M):
    C = 80
    dlow, mixed = draw(4, M, C, dtype=dtype), draw(6, M, C, dtype=dtype)
    up, down = (draw(sum(RANKS), C, dtype=dtype) / 8 for _ in range(2))
    act = naive.lora_down_naive(mixed, down, RANKS)
    want = naive_back.lora_back_naive(*exact(dlow, act, up), RANKS)
    agree(lora_back_triton(dlow, act, up, RANKS), want, dtype)


def test_low_rank_maps_are_those_of_the_way_there(draw):
    """By autograd through the maps downwards, and upwards again, in float64."""
    M, C = 5, 32
    raw, dlow, up = draw(M, sum(RANKS)).double(), draw(4, M, C).double(), draw(sum(RANKS), C).double()

    def forward(raw):
        v, w, a, g = raw.split(list(RANKS), dim=-1)
        acts = (v, w.tanh(), a, g.sigmoid())
        return tuple(x @ part for x, part in zip(acts, up.split(list(RANKS)), strict=True))

    v, w, a, g = raw.split(list(RANKS), dim=-1)
    act = torch.cat((v, w.tanh(), a, g.sigmoid()), dim=-1)
    (want,) = naive_back.pulled(forward, tuple(dlow), raw)
    assert torch.allclose(naive_back.lora_back_naive(dlow, act, up, RANKS), want)


@dtypes
@pytest.mark.parametrize(("M", "H", "K"), [(1, 5, 16), (33, 2, 64), (65, 3, 24)])
def test_read_out(draw, dtype, M, H, K):
    *inputs, dout = (draw(M, H * K, dtype=dtype) for _ in range(6))
    vectors, dg = draw(8, H * K, dtype=dtype), torch.full_like(dout, torch.nan)
    dg_want = dg.double()
    want = naive_back.read_out_back_naive(*exact(*inputs, vectors), K, dout.double(), GN, dg_want)
    got = read_out_back_triton(*inputs, vectors, K, dout, GN, dg)
    for x, y in zip((*got, dg), (*want, dg_want), strict=True):
        agree(x, y, dtype)


@dtypes
def test_squared_relu_is_in_place(draw, dtype):
    dh, x = draw(3, 2100, dtype=dtype), draw(3, 2100, dtype=dtype)
    want = 2 * torch.relu(x.double()) * dh.double()
    assert squared_relu_back_triton(dh, x) is dh
    agree(dh, want, dtype)


def test_without_a_gpu_the_twins_compute(draw):
    if DEVICE == "cuda":
        pytest.skip("there is one")
    x, weight, mix, dmixed = draw(2, 3, 16), draw(16), draw(1, 16), draw(1, 2, 3, 16)
    got = back.norm_mix_back(x, weight, mix, dmixed, None, x, eps=LN)
    want = norm_mix_back_triton(x, weight, mix, dmixed, None, x, LN)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))
    dh = draw(3, 8)
    assert torch.allclose(
        back.squared_relu_back_(dh.clone(), x[0, :, :8]), squared_relu_back_triton(dh, x[0, :, :8].contiguous())
    )
