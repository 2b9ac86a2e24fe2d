"""Where training begins: the weights of an untrained RWKV-7 or RWKV-6, and initial states of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rwkvlab.model.weights import VERSIONS
from rwkvlab.shapes import Dims

NORMS = (0.5, 20.0)  # of a head of a random initial state
CONSTANTS = {"v0": 1.0, "a0": 0.0, "k_k": 0.85, "k_a": 1.0, "bias": 0.0}
SLOPES = {"x_r": 0.2, "x_w": 0.9, "x_k": 0.7, "x_v": 0.7, "x_a": 0.9, "x_g": 0.2}
SLOPES |= {"time_maa_x": 1.0, "time_maa_w": 1.0, "time_maa_k": 1.0, "time_maa_r": 0.5, "time_maa_g": 0.5}


def initial_weights(dims: Dims, ranks: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """Return fp32 weights before training, by the official keys: normal matrices, mixes and decays spread as usual.

    ranks: those of the LoRAs (x070: w a v g; x060: maa decay). The ramps of x060 are those of RWKV-LM's x060.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = VERSIONS[dims.arch].shapes(dims, ranks)
    return {key: _initial(dims, key, torch.empty(shape), generator) for key, shape in shapes.items()}


def random_starts(
    dims: Dims, rows: int, share: float, generator: torch.Generator, norms: tuple[float, float] = NORMS
) -> Tensor:
    """Return initial WKV states [L,B,H,V,K] fp32: zeros, but noise of any norm and rank in a `share` of the rows.

    They are drawn on the device of the generator. norms: the lowest and the highest of a head, spread evenly by their
    logarithm.
    """
    heads, device = (dims.L, rows, dims.H), generator.device
    low, high = (math.log(norm) for norm in norms)
    sizes = torch.empty(*heads, 1, 1, device=device).uniform_(low, high, generator=generator).exp()
    chosen = torch.rand(1, rows, 1, 1, 1, generator=generator, device=device) < share
    # 0: all singular values alike
    steep = torch.rand(*heads, 1, 1, generator=generator, device=device) * 6
    spectrum = torch.rand(*heads, 1, dims.K, generator=generator, device=device) ** steep
    left = torch.randn(*heads, dims.V, dims.K, generator=generator, device=device)
    right = torch.randn(*heads, dims.K, dims.K, generator=generator, device=device)
    starts = (left * spectrum) @ right
    return starts / starts.norm(dim=(-2, -1), keepdim=True) * sizes * chosen


def _initial(dims: Dims, key: str, empty: Tensor, generator: torch.Generator) -> Tensor:
    """Return the initial value of one tensor."""
    name, shape = key.split(".")[-1], empty.shape
    layer = int(key.split(".")[1]) if key.startswith("blocks") else 0
    ramp = torch.arange(dims.C) / dims.C
    if ".ln" in key or key.startswith("ln"):
        return torch.ones(shape) if name == "weight" else torch.zeros(shape)
    if name in CONSTANTS:
        return torch.full(shape, CONSTANTS[name])
    early, late = 1 - layer / dims.L, layer / max(1, dims.L - 1)
    if name in SLOPES:
        slope = 1.0 if "ffn.time_maa_" in key else SLOPES[name]
        return (1 - ramp ** (slope * early)).view(shape)
    if name == "time_maa_v":
        return (1 - ramp**early - 0.3 * late).view(shape)
    if name == "w0":  # in each head from slow to fast
        return (-5 + 5.5 * (ramp * dims.H % 1) ** 0.9).view(shape)
    if name == "time_decay":  # from head to head faster
        return (-6 + 5 * (torch.arange(dims.C) / (dims.C - 1)) ** (0.7 + 1.3 * late)).view(shape)
    if name == "time_faaaa":
        return (late * (1 - ramp) + 0.1 * ((torch.arange(dims.C) + 1) % 3 - 1)).view(shape)
    return torch.randn(shape, generator=generator) * _deviation(key, name, 1 / math.sqrt(dims.C))


def _deviation(key: str, name: str, fan: float) -> float:
    """The standard deviation of a matrix."""
    if name.startswith("time_"):  # the LoRAs of x060
        return 0.1 * fan if name.endswith("_w1") else 0.1
    if name[1:] in ("1", "2"):  # those of x070
        return 0.1 * fan if name[1] == "1" else 0.25
    stds = {"r_k": 0.1, "emb.weight": 0.1, "head.weight": 0.5 * fan, "att.key.weight": 0.5 * fan}
    stds |= {"att.output.weight": 0.2 * fan, "ffn.value.weight": 0.2 * fan, "ffn.receptance.weight": 0.1 * fan}
    return next((value for end, value in stds.items() if key.endswith(end)), fan)
