"""The files that base models come in, .pth, .safetensors, Ai00's .st, Hugging Face folders: one face to all of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rwkvlab.errors import FormatError, LimitError, MismatchError, PathError, SchemaError, show
from rwkvlab.model.foreign_names import renamer, swap
from rwkvlab.tensorfile import TensorFile, read_tensors
from rwkvlab.tensorfile.entry import MAX_TENSORS
from rwkvlab.tensorfile.safetensors import strict_json
from rwkvlab.tensorfile.source import Source, as_path

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_JSON = 16 << 20  # bytes; the index of a model of 61 layers has 0.2 MB
MAX_SHARDS = 256
AGAIN = "download the folder again"


class Place(NamedTuple):
    """Where a tensor is: the file, its name there, and whether its last two axes are swapped there."""

    file: TensorFile
    key: str
    swapped: bool


class Container:
    """An open base model in one file or several: names, shapes and tensors as the official checkpoint has them.

    name is what messages call it. Use it in a `with`, or call close().
    """

    def __init__(self, name: str, files: list[TensorFile], places: dict[str, Place]) -> None:
        self.name, self._files, self._places = name, files, places

    def keys(self) -> list[str]:
        """Return the official names of the tensors."""
        return list(self._places)

    def info(self, key: str) -> tuple[torch.dtype, tuple[int, ...]]:
        """Return dtype and official shape of a tensor without reading it."""
        file, own, swapped = self._places[key]
        dtype, shape = file.info(own)
        return dtype, swap(shape) if swapped else shape

    def read(self, key: str) -> Tensor:
        """Return one tensor, a private copy on the CPU in the official orientation; see `TensorFile.read`."""
        file, own, swapped = self._places[key]
        tensor = file.read(own)
        return tensor.transpose(-1, -2).contiguous() if swapped and tensor.dim() > 1 else tensor

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_container(path: str | Path) -> Container:
    """Open a base model: a .pth, .safetensors or .st file, or a Hugging Face folder of an RWKV-7.

    The names of its tensors tell who wrote it, not the suffix. Raises PathError or LoadError of some kind.
    """
    given = as_path(path)
    folder = os.path.isdir(given)
    name = show(given.name or given.absolute().name)
    files: list[TensorFile] = []
    try:
        if folder:
            _check_config(given)
            _open_shards(given, files)
        else:
            files.append(read_tensors(given))
        shapes = {key: file.info(key)[1] for file in files for key in file}
        rename = renamer(name, shapes, whole=folder)
        places: dict[str, Place] = {}
        for file in files:
            for key in file:
                official, swapped = rename(key)
                if official in places:
                    other = show(places[official].key)
                    raise SchemaError(f"{name}: {other} and {show(key)} are the same weight; save it once")
                places[official] = Place(file, key, swapped)
    except BaseException:
        for file in files:
            file.close()
        raise
    return Container(name, files, places)


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder looks like a model on Hugging Face: a config.json beside weights."""
    return all(any(os.path.exists(os.path.join(path, name)) for name in names) for names in ((CONFIG,), (WHOLE, INDEX)))


def _check_config(folder: Path) -> None:
    if not os.path.exists(folder / CONFIG):
        raise PathError(
            f"{show(folder)}: is a folder without {CONFIG}; give the path of a model file, or a Hugging Face folder"
        )
    config = _read_json(folder / CONFIG)
    if (kind := config.get("model_type")) != "rwkv7":
        raise MismatchError(f"{CONFIG}: model_type: need 'rwkv7', got {show(kind)}; give the folder of an RWKV-7")
    if (eps := config.get("norm_eps", 1e-5)) != 1e-5:
        raise MismatchError(f"{CONFIG}: norm_eps: need 1e-05, got {show(eps)}; a variant that is not run here")


def _open_shards(folder: Path, files: list[TensorFile]) -> None:
    whole, index = os.path.exists(folder / WHOLE), os.path.exists(folder / INDEX)
    if whole and index:
        raise SchemaError(f"{show(folder.name)}: has both {WHOLE} and {INDEX}; remove the one that is out of date")
    if not index:
        if not whole:
            raise PathError(f"{show(folder)}: has no {WHOLE} and no {INDEX}; {AGAIN}, with its .safetensors files")
        files.append(read_tensors(folder / WHOLE))
        return
    for shard, keys in _shards(folder).items():
        if not os.path.exists(folder / shard):
            raise PathError(f"{INDEX}: weight_map: {show(shard)} is not in {show(folder)}; download it to there")
        files.append(file := read_tensors(folder / shard))
        if lost := [key for key in keys if key not in file]:
            raise SchemaError(f"{file.name}: {show(lost[0])} is not in it, in spite of {INDEX}; {AGAIN}")
        if extra := [key for key in file if key not in keys]:
            raise SchemaError(f"{file.name}: {show(extra[0])} is in it, and not so in {INDEX}; {AGAIN}")


def _shards(folder: Path) -> dict[str, set[str]]:
    """Return the names in every shard, by the shard's file name, which is plain: no way leads out of the folder."""
    table = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise FormatError(f"{INDEX}: weight_map: need an object of tensor names and file names; {AGAIN}")
    if len(table) > MAX_TENSORS:
        raise LimitError(f"{INDEX}: weight_map: {len(table):,} tensors, at most {MAX_TENSORS:,} are read; {AGAIN}")
    shards: dict[str, set[str]] = {}
    for key, shard in table.items():
        plain = isinstance(shard, str) and len(shard) < 256 and not re.search(r"[/\\:\0]", shard)
        if not plain or shard.startswith(".") or not shard.isprintable() or not shard.endswith(".safetensors"):
            raise FormatError(
                f"{INDEX}: weight_map: {show(key)}: need the plain name of a .safetensors file in the folder,"
                f" got {show(shard)}; {AGAIN}"
            )
        shards.setdefault(shard, set()).add(key)
    if len(shards) > MAX_SHARDS:
        raise LimitError(f"{INDEX}: weight_map: {len(shards):,} files, at most {MAX_SHARDS} are read; save larger ones")
    return shards


def _read_json(path: Path) -> dict[str, Any]:
    source = Source(path)
    try:
        if source.size > MAX_JSON:
            raise LimitError(f"{source.name}: has {source.size:,} bytes, at most {MAX_JSON:,} are read; {AGAIN}")
        return strict_json(source.name, source.bytes_at(0, source.size))
    finally:
        source.close()
