"""The letters of every shape (B T L H V K C) and the checks made at the doors."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, MismatchError, show


@dataclass(frozen=True)
class Dims:
    """The geometry of a model, read off its tensors.

    arch is "x052", "x060" or "x070"; L layers, H heads, C = H * K the width, K key and V value channels of a head,
    ffn the width of the channel mix, vocab the number of token ids.
    """

    arch: str
    L: int
    H: int
    C: int
    K: int
    V: int
    ffn: int
    vocab: int

    def __str__(self) -> str:
        return f"{ARCH_NAMES.get(self.arch, self.arch)} L{self.L} C{self.C} H{self.H} K{self.K} V{self.V}"


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ARCH_NAMES = {"x052": "RWKV-5.2", "x060": "RWKV-6", "x070": "RWKV-7"}


def check_shape(name: str, tensor: Tensor, error: type[Exception] = MismatchError, **axes: int) -> Tensor:
    """Return `tensor` if its shape is that of `axes` in order, e.g. `check_shape("ffn_shift", x, L=2, C=8)`.

    Raises `error`: `ffn_shift: expected [L=2, C=8], got [2, 9]`.
    """
    if tuple(tensor.shape) != tuple(axes.values()):
        want = ", ".join(f"{letter}={size}" for letter, size in axes.items())
        raise error(f"{name}: expected [{want}], got {list(tensor.shape)}")
    return tensor


def check_range(name: str, value: float, low: float, high: float, *, whole: bool = False) -> float:
    """Return `value` if it is a number in [low, high] (an integer where `whole`); raises ArgError, NaN included."""
    kind = Integral if whole else Real  # numpy's numbers are of these kinds too
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ArgError(f"{name}: need {'an integer' if whole else 'a number'} in [{low}, {high}], got {show(value)}")
    return int(value) if whole else value


def check_items(name: str, value: Any) -> list[Any]:
    """Return the items of a list, tuple or other iterable that is no text; raises ArgError for anything else."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ArgError(f"{name}: need a list, got {show(value)}")
    return list(value)


def as_tensor(name: str, value: object) -> Tensor:
    """Return `value` (tensor or array) as a floating-point tensor; raises ArgError for anything else."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgError(f"{name}: need a tensor or array of numbers, got {type(value).__name__}") from error
    if not tensor.is_floating_point():
        raise ArgError(f"{name}: need floating-point numbers, got {tensor.dtype}")
    return tensor


def as_number(name: str, value: object) -> float:
    """Return whatever converts to a finite float, tensors of one number too, but no text; raises ArgError."""
    try:
        number = math.nan if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ArgError(f"{name}: need a finite number, got {show(value)}")
    return number
