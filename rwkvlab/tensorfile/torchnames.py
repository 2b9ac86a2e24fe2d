"""What the pickle in a .pth may name, and the plain values that stand for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
}
OTHER_KINDS = {
    f"torch.{kind}Storage"
    for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat", "ComplexDouble", "QInt8", "QUInt8")
}
OTHER_KINDS |= {"torch.storage.UntypedStorage", "torch._utils._rebuild_tensor_v3"}
CALLS = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}


@dataclass(frozen=True)
class Global:
    """The name of something in Python; naming it does nothing."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A member `data/{key}` that holds numel values of one dtype."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class Strided:
    """A view of a storage, in elements: what `_rebuild_tensor_v2` was told. Nothing is checked yet."""

    storage: Storage
    offset: Any
    shape: Any
    stride: Any
