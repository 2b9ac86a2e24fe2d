"""Our side of the comparison with PyPI's `rwkv`: logits, in what they were computed, and how far apart they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rwkvlab.model.engine import Model
from rwkvlab.states.state import State

# of the rms, in standard deviations of the logits; single logits go much further astray. Measured on random
# models of 2 to 32 layers, which spread errors more than trained ones do: fp32 5e-7 to 4e-4, fp16 0.001 to 0.09, bf16
# 0.007 to 0.6; unrelated logits are 1.4 apart. So 16 bits show gross errors only: the copy in fp32 is the exact check
# (tf32, which torch may be told to multiply fp32 in, has the significand of fp16)
LIMITS = {"fp32": 1e-3, "tf32": 0.2, "bf16": 0.7, "fp16": 0.2}
EXACT = "fp32 on cpu"


def way_of(model: Model) -> str:
    """Return what a model multiplies in, and where, such as "fp32 on cpu"; a key of LIMITS in its first 4 letters."""
    name = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[model.dtype]
    rounded = name == "fp32" and model.device.type != "cpu" and _precision() != "highest"
    return f"{'tf32' if rounded else name} on {model.device.type}"


def _precision() -> str:
    """Return what torch may round factors of fp32 matrices to; "highest" is not at all, "" is not known."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # where it was set through the newer `fp32_precision` of some backend
        return ""


def our_logits(model: Model, tokens: Sequence[int], starts: Mapping[str, State | None]) -> list[Tensor]:
    """Return the logits [T,vocab] on the CPU after each of `tokens` [T], from every start."""
    before = _precision() if way_of(model) == EXACT else ""
    try:
        if before:
            torch.set_float32_matmul_precision("highest")
        with torch.no_grad():
            logits = [model.forward(list(tokens), start).logits for start in starts.values()]
    finally:
        if before:
            torch.set_float32_matmul_precision(before)
    return [one[0].cpu() for one in logits if one is not None]


def compared(start: str, way: str, got: Tensor, want: Tensor) -> tuple[str, str, float, float, float, bool]:
    """Return a row of `LogitCheck.table` from our logits [T,vocab] and the official ones."""
    unit = float(want.double().std())
    error = (got.double() - want.double()) / unit
    largest, rms = float(error.abs().max()), float(error.square().mean().sqrt())
    top = float((got.argmax(dim=-1) == want.argmax(dim=-1)).double().mean())
    return start, way, largest, rms, top, rms <= LIMITS[way[:4]]
