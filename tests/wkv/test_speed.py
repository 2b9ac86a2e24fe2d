"""Chunks must pay: chunked against naive on this machine, each held to its error."""

from time import perf_counter

import pytest
import torch
from wkv import wkv6, wkv7

# at B=1, T=1024, H=12, K=V=64 and the models' decays, whatever the machine
FORWARD, BOTH_WAYS = 2.5, 6.0
# relative RMS against float64
ERROR = 2e-6


def draw(name):
    g = torch.Generator().manual_seed(0)
    r, k, key, gate, rate, v = (torch.randn(1, 1024, 12, 64, generator=g) for _ in range(6))
    s0 = torch.randn(1, 12, 64, 64, generator=g)
    if name == "wkv7":
        kk = torch.nn.functional.normalize(key, dim=-1)
        return [r, -0.606531 * (2 * gate - 2).sigmoid(), k, v, -kk, kk * rate.sigmoid(), s0]
    return [r, -(gate - 2).exp(), k, v, torch.randn(12, 64, generator=g), s0]


def seconds(call):
    begin = perf_counter()
    call()
    return perf_counter() - begin


def ratio(slow, fast, wanted, tries):
    """The best of a few rounds on each side; a busy machine gets more of them before the verdict."""
    slowest = fastest = float("inf")
    for _ in range(tries):
        slowest, fastest = min(slowest, seconds(slow)), min(fastest, *(seconds(fast) for _ in range(3)))
        if slowest / fastest >= wanted:
            break
    return slowest / fastest


@pytest.mark.long
@pytest.mark.parametrize("operator", [wkv7, wkv6], ids=lambda f: f.__name__)
def test_chunks_outrun_single_tokens(operator):
    inputs = draw(operator.__name__)
    with torch.no_grad():
        want = operator(*(x.double() for x in inputs), backend="naive")
        for x, y in zip(operator(*inputs, backend="chunked"), want, strict=True):
            assert float((x - y).norm() / y.norm()) <= ERROR
        calls = [lambda b=b: operator(*inputs, backend=b) for b in ("naive", "chunked")]
        assert ratio(*calls, FORWARD, tries=10) >= FORWARD
    inputs = [x.requires_grad_() for x in inputs]
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=g) for x in want]
    calls = [
        lambda b=b: torch.autograd.grad(operator(*inputs, backend=b), inputs, weights) for b in ("naive", "chunked")
    ]
    assert ratio(*calls, BOTH_WAYS, tries=3) >= BOTH_WAYS
