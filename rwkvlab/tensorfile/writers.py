"""Write tensors as safetensors or as torch's .pth, atomically."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rwkvlab.errors import SaveError, show
from rwkvlab.tensorfile.atomic import atomic_write
from rwkvlab.tensorfile.safetensors import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = True,
) -> Path:
    """Write tensors (float64, float32, float16, bfloat16; any strides and device) and texts; returns the path.

    Raises SaveError for other dtypes, keys or metadata that are no strings, where the system refuses, and with
    overwrite=False for a file that is there; PathError for a path that cannot be.
    """
    own = _own(path, tensors)
    header: dict[str, object] = {}
    if metadata:
        if not all(_is_text(text) for pair in metadata.items() for text in pair):
            raise SaveError(f"{show(Path(path).name)}: metadata: need Unicode texts only; turn numbers into text first")
        header["__metadata__"] = dict(metadata)
    # wide numbers first, so that every tensor lies at a multiple of its own size
    order = sorted(own, key=lambda key: (-own[key].dtype.itemsize, key))
    position = 0
    for key in order:
        size = own[key].numel() * own[key].dtype.itemsize
        header[key] = {
            "dtype": _NAMES[own[key].dtype],
            "shape": list(own[key].shape),
            "data_offsets": [position, position + size],
        }
        position += size
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for key in order:
            file.write(_bytes(own[key]))

    return atomic_write(path, write, overwrite=overwrite)


def write_pth(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], *, overwrite: bool = True) -> Path:
    """Write a plain dict of tensors as torch.save does, which every trainer and loader reads; returns the path.

    Raises as `write_safetensors` does.
    """
    own = _own(path, tensors)
    for key, tensor in own.items():
        if tensor.untyped_storage().nbytes() != tensor.numel() * tensor.dtype.itemsize:
            own[key] = tensor.clone()  # torch.save writes whole storages

    def write(file: BinaryIO) -> None:
        watched = _Watched(file)
        try:
            torch.save(own, watched)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise watched.error or OSError(errno.EIO, "torch could not write it") from error

    return atomic_write(path, write, overwrite=overwrite)


class _Watched:
    """A file that remembers the first error of a write: torch would make a RuntimeError of it, of Ctrl-C too."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        return self._watch(self._file.write, data)

    def flush(self) -> None:
        self._watch(self._file.flush)

    def _watch(self, call: Callable[..., Any], *args: object) -> Any:
        try:
            return call(*args)
        except BaseException as error:
            self.error = self.error or error
            raise


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of the tensors' names, dtypes, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        total.update(json.dumps([key, _NAMES[tensor.dtype], list(tensor.shape)]).encode())
        total.update(_bytes(tensor))
    return total.hexdigest()


def _own(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    name = show(os.path.basename(os.fspath(path)))
    if not tensors:
        raise SaveError(f"{name}: no tensors to write; give at least one")
    for key, tensor in tensors.items():
        if not _is_text(key) or key == "__metadata__":
            raise SaveError(f"{name}: {show(key)}: cannot be the name of a tensor; use another Unicode text")
        if not isinstance(tensor, Tensor) or tensor.dtype not in _NAMES:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise SaveError(
                f"{name}: {show(key)}: got {got}, need a tensor of {', '.join(map(str, _NAMES))}; convert it"
            )
    return {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _bytes(tensor: Tensor) -> memoryview:
    # a single number may have any stride and still be contiguous
    return tensor.reshape(-1).as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data
