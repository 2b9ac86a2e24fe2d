"""What the GPU benchmark runs on: shapes, inputs in the models' range, the float64 truth, the bytes that must move."""

import torch
from torch import Tensor
from torch.nn.functional import normalize
from wkv import wkv6, wkv7

OPERATORS = {"wkv7": wkv7, "wkv6": wkv6}
# (B,T,H) at K = V = 64: training, and the prefill of one layer
TRAINING = {
    "wkv7": [(8, 4096, 32), (1, 16384, 32), (8, 1024, 12), (1, 4096, 64)],
    "wkv6": [(8, 4096, 32), (1, 16384, 32)],
}
PREFILL = {"wkv7": [(1, 4096, 32)], "wkv6": [(1, 4096, 32)]}
# (B,T,H): one token in place, and a few
DECODE = [(512, 1, 32), (64, 1, 32), (1, 1, 32), (64, 16, 32)]
# tokens times heads at which float64 still fits beside its gradients
TRUTH = 1 << 18


def draw(name: str, B: int, T: int, H: int, N: int = 64, seed: int = 0) -> list[Tensor]:
    """bf16 inputs with log decays like those of trained models, and a start of RMS 1 in fp32."""
    g = torch.Generator("cuda").manual_seed(seed)
    r, k, key, gate, rate, v = (torch.randn(B, T, H, N, device="cuda", generator=g).bfloat16() for _ in range(6))
    s0 = torch.randn(B, H, N, N, device="cuda", generator=g)
    if name == "wkv7":
        kk = normalize(key, dim=-1)
        return [r, -0.606531 * (2 * gate - 2).sigmoid(), k, v, -kk, kk * rate.sigmoid(), s0]
    u = torch.randn(H, N, device="cuda", generator=g).bfloat16()
    return [r, -(gate - 2).exp(), k, v, u, s0]


def shortened(B: int, T: int, H: int) -> tuple[int, int, int]:
    """The same batch and heads with as many tokens as the truth has room for."""
    return B, min(T, max(64, TRUTH // (B * H))), H


def error(x: Tensor, want: Tensor) -> float:
    """Relative RMS; NaN where anything is NaN."""
    return ((x.double() - want).norm() / want.norm()).item()


def truth(name: str, inputs: list[Tensor], weights: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
    """(y, s) in float64, and the gradients of the inputs where `weights` of y and s are given."""
    exact = [x.double().requires_grad_(weights is not None) for x in inputs]
    outputs = OPERATORS[name](*exact, backend="chunked")
    gradients = torch.autograd.grad(outputs, exact, [x.double() for x in weights]) if weights else ()
    return [x.detach() for x in outputs], list(gradients)


def weights_of(inputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Gradients of y, like v, and of the last state, like s0."""
    g = torch.Generator("cuda").manual_seed(seed)
    return [torch.randn(x.shape, device="cuda", generator=g).to(x.dtype) for x in (inputs[3], inputs[-1])]


def bytes_forward(inputs: list[Tensor]) -> int:
    """Every input, the output and the last state once."""
    return sum(x.nbytes for x in inputs) + inputs[3].nbytes + inputs[-1].nbytes


def bytes_backward(inputs: list[Tensor]) -> int:
    """All inputs, their gradients, that of the output, and three states: s0 and the gradients of the last and of s0."""
    return 2 * sum(x.nbytes for x in inputs[:-1]) + inputs[3].nbytes + 3 * inputs[-1].nbytes
