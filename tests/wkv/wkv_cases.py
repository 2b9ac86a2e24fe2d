"""What the tests of the WKV operators share: inputs, the float64 truth, errors, and what each backend is held to."""

import pytest
import torch
from wkv import wkv6, wkv7
from wkv.checks import WIDEST_EXACT

GPU = torch.cuda.is_available()
OPERATORS = {"wkv7": wkv7, "wkv6": wkv6}
# the lower end of RWKV-7's log decays
LEAST = -0.60653066
WAYS = {
    "chunked": [torch.float64, torch.float32],
    "triton": [torch.float32, torch.float16, torch.bfloat16],
    "serial": [torch.float32, torch.float16, torch.bfloat16],
}
# relative RMS against float64 on the same rounded inputs: y, gradients, states with the gradient of s0
BOUNDS = {
    torch.float64: (1e-13, 1e-13, 1e-13),
    torch.float32: (1e-5, 1e-5, 1e-5),
    torch.float16: (1e-3, 2e-3, 1e-3),
    torch.bfloat16: (2.5e-3, 3e-3, 1e-3),
}

both_operators = pytest.mark.parametrize("name", OPERATORS)
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="needs a CUDA GPU")]


def bounds(dtype):
    """Triton's interpreter truncates where a GPU rounds: twice the error of 16 bits."""
    output, gradient, state = BOUNDS[dtype]
    twice = 2 if not GPU and dtype in (torch.bfloat16, torch.float16) else 1
    return twice * output, twice * gradient, state


def device_of(way):
    return "cuda" if GPU and way != "chunked" else "cpu"


def draw(name, B=1, T=1, H=1, K=16, V=16, *, starts=None, dtype=torch.float32, way="triton", scale=1.0, seed=0):
    """Inputs with log decays of the model's range times `scale`, keys a model could have, and a non-zero start."""
    g = torch.Generator().manual_seed(seed)
    r, k, gate, key, rate = (torch.randn(B, T, H, K, generator=g) for _ in range(5))
    v, s0 = torch.randn(B, T, H, V, generator=g), torch.randn(B if starts is None else starts, H, V, K, generator=g)
    if name == "wkv7":
        kk = torch.nn.functional.normalize(key, dim=-1)
        rest = [r, (LEAST * scale * gate.sigmoid()).clamp(min=LEAST), k, v, -kk, kk * rate.sigmoid()]
    else:
        rest = [r, -scale * (gate - 1).exp(), k, v, torch.randn(H, K, generator=g)]
    start = s0.to(dtype) if dtype is torch.float64 else s0
    return [x.to(device_of(way)) for x in (*(x.to(dtype) for x in rest), start)]


def call(name, inputs, way, *, cu_seqlens=None, chunk_states=None):
    """(y, s) or (y, s, chunk states) of one implementation, whatever the number of tokens."""
    options = {"cu_seqlens": cu_seqlens, "chunk_states": chunk_states}
    if way in ("chunked", "naive"):
        return OPERATORS[name](*inputs, backend=way, **options)
    if GPU and way == "triton" and inputs[0].dtype is torch.float32 and max(inputs[-1].shape[2:]) > WIDEST_EXACT:
        return OPERATORS[name](*inputs, **options)  # which takes another way: these do not fit
    from wkv.wkv6.triton_op import wkv6_triton
    from wkv.wkv6.triton_serial import wkv6_serial
    from wkv.wkv7.triton_op import wkv7_triton
    from wkv.wkv7.triton_serial import wkv7_serial

    kernels = {
        "triton": {"wkv7": wkv7_triton, "wkv6": wkv6_triton},
        "serial": {"wkv7": wkv7_serial, "wkv6": wkv6_serial},
    }
    return tuple(x for x in kernels[way][name](*inputs, **options) if x is not None)


def truth(name, inputs, **options):
    return call(name, [x.double() for x in inputs], "naive", **options)


def error(x, want):
    """Relative RMS (the RMS itself where zeros are wanted); NaN anywhere gives NaN, which passes no comparison."""
    assert x.shape == want.shape
    off, size = (x.double() - want.double()).norm(), want.double().norm()
    return float(off / size if size > 0 else off)


def check_outputs(found, want, dtype):
    """y, s and the kept states, in this order."""
    output, _, state = bounds(dtype)
    assert found[0].dtype is dtype
    errors = [error(x, z) for x, z in zip(found, want, strict=True)]
    assert errors[0] <= output and all(e <= state for e in errors[1:]), errors


def check_gradients(found, want, dtype):
    """Those of the inputs, then that of s0."""
    _, gradient, state = bounds(dtype)
    errors = [error(x, z) for x, z in zip(found, want, strict=True)]
    assert errors[-1] <= state and all(e <= gradient for e in errors[:-1]), errors


def gradients(name, inputs, way, only=None, silent=0, **options):
    """Gradients of a fixed mixture of all outputs, or of those in `only`, in all inputs; y has none at `silent` tokens.

    These are the first ones.
    """
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = call(name, inputs, way, **options)
    chosen = [i for i in only or range(len(outputs)) if outputs[i].requires_grad]
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=g).bfloat16().to(x) for x in outputs]  # the same in every dtype
    weights[0][:, :silent] = 0
    return torch.autograd.grad(
        [outputs[i] for i in chosen], inputs, [weights[i] for i in chosen], allow_unused=True, materialize_grads=True
    )


def exact_gradients(name, inputs, **options):
    """The same mixture's in float64."""
    return gradients(name, [x.double() for x in inputs], "naive", **options)
