"""Seeded random checkpoints in official layout with no zero weights, for tests, benchmarks and trying things out."""

from __future__ import annotations

import torch
from torch import Tensor

from rwkvlab.model.weights import VERSIONS
from rwkvlab.shapes import Dims

DEFAULT_RANKS = {"w": 64, "a": 64, "v": 32, "g": 128, "maa": 32, "decay": 64}

# where in its range a vector of this name is drawn: (low, high), uniform; everything else is normal
_UNIFORM = {
    "x_": (0.1, 0.9),
    "time_mix_": (0.1, 0.9),
    "time_maa_": (0.1, 0.9),
    "w0": (-4.0, 2.0),
    "time_decay": (-5.0, 0.5),
    "k_k": (0.5, 1.1),
    "k_a": (0.5, 1.1),
}
_NORMAL = {"a0": 0.7, "v0": 0.7, "r_k": 0.4, "time_faaaa": 0.6}


def random_weights(
    dims: Dims, ranks: dict[str, int] | None = None, seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Return fp32 weights by official key for a geometry; the same numbers for the same arguments and kind of device.

    ranks are those of the LoRAs (RWKV-7: w a v g; RWKV-6: maa decay). Unlike the official initialisation, which starts
    some matrices at zero, every tensor has an effect on the logits.
    """
    table = VERSIONS[dims.arch].shapes(dims, DEFAULT_RANKS | (ranks or {}))
    generator = torch.Generator(device).manual_seed(seed)
    return {key: _draw(key, shape, generator) for key, shape in table.items()}


def _draw(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    name = key.rsplit(".", 1)[-1] if not key.endswith((".weight", ".bias")) else key.rsplit(".", 2)[-2]
    matrix = len([size for size in shape if size > 1]) > 1
    normal = torch.empty(shape, device=generator.device).normal_(generator=generator)
    if "ln" in name:
        return normal.mul_(0.2).add_(1.0) if key.endswith(".weight") else normal.mul_(0.2)
    if name in _NORMAL:
        return normal * _NORMAL[name]
    for prefix, (low, high) in _UNIFORM.items():
        if name.startswith(prefix) and not name.endswith(("_w1", "_w2")):
            return torch.empty(shape, device=generator.device).uniform_(low, high, generator=generator)
    if name == "emb":
        return normal
    if not matrix:
        return normal * 0.5
    # official matrices are [out, in]; the two halves of a LoRA are [in, rank] and [rank, out]
    fan_in = shape[-1] if key.endswith(".weight") else shape[-2]
    return normal / fan_in**0.5
