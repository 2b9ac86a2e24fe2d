"""The chunked WKV-6 kernels where they are most likely wrong: units, rates of decay, both ways to share out work."""

import pytest
import torch
from wkv_cases import bounds, device_of, draw, error

pytest.importorskip("triton")

from wkv.chunk_table import ChunkTable
from wkv.wkv6 import triton_launch
from wkv.wkv6.chunked import wkv6_chunked

pytestmark = pytest.mark.usefixtures("poison")
DEVICE = device_of("triton")


def run(inputs, dy, ds, dstates=None, lengths=None):
    """(y, s, states, gradients of r, w, k, v, u and s0) of the kernels."""
    *xs, s0 = inputs
    table, _ = ChunkTable.plan(*xs[0].shape[:2], lengths, None, torch.device(DEVICE))
    y, s, states = triton_launch.forward(*xs, s0, table, True)
    return [y, s, states, *triton_launch.backward(*xs, states, dy, ds, dstates, table)]


def exact(inputs, dy, ds, dstates=None, lengths=None):
    xs = [x.double().requires_grad_() for x in inputs]
    y, s, states = wkv6_chunked(*xs, lengths, 64)
    outputs, weights = [y, s], [dy.double(), ds.double()]
    if dstates is not None:
        outputs.append(states)
        weights.append(dstates.double().unflatten(0, states.shape[:2]))
    return [x.detach() for x in (y, s, states.flatten(0, 1), *torch.autograd.grad(outputs, xs, weights))]


def check(inputs, lengths=None, dstates=False):
    """All outputs and gradients against float64, each within its bound."""
    v, s0 = inputs[3], inputs[5]
    g = torch.Generator().manual_seed(1)
    dy = torch.randn(v.shape, generator=g).to(v)
    ds = torch.randn(s0.shape, generator=g).to(s0)
    if dstates:
        dstates = torch.randn(v.shape[0] * -(-v.shape[1] // 64), *s0.shape[1:], generator=g).to(s0)
    found = run(inputs, dy, ds, dstates if dstates is not False else None, lengths)
    want = exact(inputs, dy, ds, dstates if dstates is not False else None, lengths)
    output, gradient, state = bounds(v.dtype)
    limits = [output, state, state, *[gradient] * 5, state]
    errors = [error(x, z) for x, z in zip(found, want, strict=True)]
    assert all(e <= limit for e, limit in zip(errors, limits, strict=True)), errors


@pytest.fixture(params=["at once", "apart"])
def sharing(request, monkeypatch):
    """Outputs computed on the walk over the states, or from the states that it kept."""
    monkeypatch.setattr(triton_launch, "FEW", 0 if request.param == "at once" else 10**9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_both_ways_of_sharing_agree_with_the_truth(sharing, dtype):
    check(draw("wkv6", B=2, T=70, K=16, V=24, dtype=dtype), dstates=True)


@pytest.mark.parametrize("K", [40, 128])
def test_channels_beyond_one_tile_get_their_gradients(K):
    check(draw("wkv6", T=66, K=K, V=16, dtype=torch.float16))


def test_value_rows_beyond_one_tile_get_their_outputs():
    check(draw("wkv6", T=66, K=16, V=72, dtype=torch.float16))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_rate_of_decay_has_its_gradient(scale, dtype):
    """Sums over the chunk whose differences are the gradient would lose it where decay is strong."""
    inputs = draw("wkv6", T=64, K=16, dtype=dtype)
    inputs[1] = (inputs[1] * scale).clamp(min=-9)
    check(inputs)


def test_forgetting_all_now_and_then_is_exact():
    inputs = draw("wkv6", T=130, K=16)
    g = torch.Generator().manual_seed(2)
    inputs[1][torch.rand(inputs[1].shape, generator=g) < 0.1] = -torch.inf
    inputs[1][torch.rand(inputs[1].shape, generator=g) < 0.1] = -1e4
    check(inputs)


@pytest.mark.parametrize("which", [0, 2, 3, 5])
def test_inputs_of_any_size_are_seen(which):
    """r, k, v or s0 tiny, huge or zero beside the others: no gradient drowns in fp16."""
    for scale in (0.0, 2.0**-30, 2.0**20):
        inputs = draw("wkv6", T=20, K=16, dtype=torch.bfloat16)
        inputs[which] = inputs[which] * scale
        check(inputs)


def test_packed_sequences_of_no_and_of_many_tokens_are_apart(sharing):
    check(draw("wkv6", T=75, K=16, H=2, starts=4, dtype=torch.float16), lengths=[5, 0, 69, 1])
