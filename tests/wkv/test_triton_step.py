"""The Triton decode steps against the float64 truth, and that they write the caller's state and nothing else."""

import pytest
import torch

pytest.importorskip("triton")

from wkv.wkv6.naive import wkv6_naive
from wkv.wkv6.triton_step import wkv6_step_triton
from wkv.wkv7.naive import wkv7_naive
from wkv.wkv7.triton_step import wkv7_step_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# relative RMS against float64 on the same rounded inputs; the interpreter truncates where a GPU rounds: twice the error
OUTPUT = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}
STATE = 1e-5
OPERATORS = {"wkv7": (wkv7_step_triton, wkv7_naive), "wkv6": (wkv6_step_triton, wkv6_naive)}

both_operators = pytest.mark.parametrize("name", OPERATORS)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh memory is full of NaN: what a kernel leaves unwritten shows."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        x = empty(*args, **kwargs)
        return x.fill_(float("nan")) if x.is_floating_point() else x

    monkeypatch.setattr(torch, "empty", poisoned)


def draw(name, B, H, K, V, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    r, k, x, z, w = (torch.randn(B, H, K, generator=g) for _ in range(5))
    v, s = torch.randn(B, H, V, generator=g), torch.randn(B, H, V, K, generator=g)
    kk = torch.nn.functional.normalize(x, dim=-1)
    rest = [r, -w.exp(), k, v, x[0]] if name == "wkv6" else [r, -0.606531 * w.sigmoid(), k, v, -kk, kk * z.sigmoid()]
    return [*(x.to(dtype).to(DEVICE) for x in rest), s.to(DEVICE)]


def error(x, want):
    assert x.shape == want.shape
    return ((x.double() - want).norm() / want.norm()).item()


def check(name, inputs):
    step, naive = OPERATORS[name]
    *rest, s = inputs
    vectors = 4 if name == "wkv6" else 6
    tokens = [x.double()[:, None] for x in rest[:vectors]] + [x.double() for x in rest[vectors:]]
    want_y, want_s = naive(*tokens, s.double())
    kept = [x.clone() for x in rest]
    place = s.data_ptr()
    y = step(*rest, s)
    assert y.dtype is rest[3].dtype
    assert error(y, want_y[:, 0]) <= OUTPUT[y.dtype]
    assert error(s, want_s) <= STATE
    assert s.data_ptr() == place
    assert all(torch.equal(x, z) for x, z in zip(rest, kept, strict=True))


@both_operators
@pytest.mark.parametrize(("K", "V"), [(16, 16), (32, 64), (64, 128), (128, 32), (5, 17), (48, 40)])
def test_one_token_agrees_with_the_truth(name, K, V):
    check(name, draw(name, B=3, H=2, K=K, V=V))


@both_operators
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_inputs_keep_an_fp32_state(name, dtype):
    check(name, draw(name, B=2, H=3, K=16, V=32, dtype=dtype))


@both_operators
def test_a_state_inside_a_larger_buffer_is_updated_there_and_its_neighbours_are_not(name):
    *rest, s = draw(name, B=2, H=3, K=16, V=24)
    buffer = torch.full((2, 4, 3, 24, 16), 7.0, device=DEVICE)  # [B,L,H,V,K], rows of one layer are apart
    buffer[:, 1] = s
    check(name, [*rest, buffer[:, 1]])
    assert not torch.equal(buffer[:, 1], s)
    assert (buffer[:, [0, 2, 3]] == 7.0).all()


@both_operators
def test_inputs_of_any_strides_give_the_same_bits(name):
    *rest, s = draw(name, B=2, H=3, K=16, V=24)
    other = s.clone()
    y = OPERATORS[name][0](*rest, s)
    apart = [torch.stack([x, x.neg()], dim=-1)[..., 0] for x in rest]
    assert torch.equal(OPERATORS[name][0](*apart, other), y)
    assert torch.equal(other, s)


@both_operators
def test_an_empty_batch_is_no_error(name):
    *rest, s = draw(name, B=1, H=2, K=16, V=16)
    vectors = 4 if name == "wkv6" else 6
    y = OPERATORS[name][0](*(x[:0] for x in rest[:vectors]), *rest[vectors:], s[:0])
    assert y.shape == (0, 2, 16)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="140 000 heads are too many for the interpreter")
@both_operators
def test_more_heads_than_a_grid_axis_holds(name):
    check(name, draw(name, B=2, H=70_000, K=16, V=16))
