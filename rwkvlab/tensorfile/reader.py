"""read_tensors: the one door to the tensors of a file; its content decides what it is, never its suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from types import TracebackType

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, FormatError, SchemaError, UnsafeFileError, show
from rwkvlab.tensorfile import pth, safetensors
from rwkvlab.tensorfile.entry import Entry
from rwkvlab.tensorfile.source import Source, known_kind, refuse_kind


class TensorFile:
    """An open file of named tensors: a description of each, and `read` for one at a time.

    format is "pth" or "safetensors", path the file, metadata the texts that a safetensors file carries, notes what the
    reader found odd and accepted; is_list tells that a .pth holds a list, whose keys are then "0", "1", ….
    Everything but the tensors' own bytes is checked when the file is opened. Use it in a `with`, or call close().
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open and check a file; see `read_tensors`."""
        self._source = Source(path)
        self.path, self.name = self._source.path, self._source.name
        self.metadata: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()
        self.is_list = False
        self._entries: dict[str, Entry] = {}
        self._checked: set[int] = set()
        try:
            self.format = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> str:
        source = self._source
        head = source.bytes_at(0, min(source.size, 512))
        if safetensors.looks_like(head):
            self._entries, self.metadata = safetensors.parse(source)
            return "safetensors"
        if head.startswith(b"PK\x03\x04"):
            self._entries, self.notes, self.is_list = pth.parse(source)
            return "pth"
        if _is_pickle(head):
            raise _refuse_pickle(source, head)
        if len(head) < 10 and not known_kind(head):
            raise safetensors.too_short(source)
        raise safetensors.bad_length(source, head) if head[8:9] == b"{" else refuse_kind(source, head)

    def keys(self) -> list[str]:
        """Return the names of the tensors, in the order of the file."""
        return list(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, key: str) -> Entry:
        if key not in self._entries:
            raise SchemaError(f"{self.name}: no tensor {show(key)}; it has {len(self)}, see keys()")
        return self._entries[key]

    def info(self, key: str) -> tuple[torch.dtype, tuple[int, ...]]:
        """Return dtype and shape of a tensor without reading it."""
        entry = self._entry(key)
        return entry.dtype, entry.shape

    def crc(self, key: str) -> int | None:
        """Return the CRC-32 that the file names for the bytes of a tensor; None where it names none for just these."""
        entry = self._entry(key)
        whole = entry.stride is None and entry.span * entry.dtype.itemsize == entry.record_size
        return entry.crc if whole else None

    def read(self, key: str) -> Tensor:
        """Return one tensor, a private copy on the CPU with the dtype (and the strides) that it was saved with.

        Raises SchemaError for an unknown key, FormatError where the CRC-32 of a .pth differs, TruncatedError where the
        file ends early, ArgError after close().
        """
        entry, source = self._entry(key), self._source
        if source.closed:
            raise ArgError(f"{self.name}: the file was closed; read inside the `with`, or open it again")
        buffer = torch.empty(entry.span, dtype=entry.dtype)
        size = entry.span * entry.dtype.itemsize
        whole = size == entry.record_size
        check = entry.crc is not None and entry.record not in self._checked
        if check and not whole and size:
            self._verify(key, entry, source.crc_of(entry.record, entry.record_size))
        crc = source.fill(buffer, entry.record + entry.offset * entry.dtype.itemsize, crc=check and whole)
        if check and whole:
            self._verify(key, entry, crc)
        if entry.stride is None:
            return buffer.view(entry.shape)
        view = buffer.as_strided(entry.shape, entry.stride)
        return view if view.numel() == entry.span else view.clone()

    def _verify(self, key: str, entry: Entry, crc: int) -> None:
        if crc != entry.crc:
            raise FormatError(
                f"{self.name}: {show(key)}: its bytes are damaged (CRC-32 differs in {show(entry.member)});"
                " download or copy the file again"
            )
        self._checked.add(entry.record)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._source.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_source"):
            self.close()

    def __repr__(self) -> str:
        return f"<TensorFile {self.name} {self.format}, {len(self)} tensors>"


def read_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Open a .pth (torch's zip format) or safetensors file of float64, float32, float16 or bfloat16 tensors.

    Nothing in the file is run, nothing is mapped, and no tensor is allocated before everything was checked. Use it as
    `with read_tensors(path) as file: file.read(key)`. Raises PathError (missing, folder, pipe), UnsafeFileError (asks
    for code), FormatError (another kind of file, or damaged), TruncatedError, LimitError or SchemaError (its tensors).
    """
    return TensorFile(path)


_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_TEXT_PICKLE = re.compile(rb"\(?[dlt]?c[A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n|\([dl]p?\d*\n|\(i[\w.]+\n")


def _is_pickle(head: bytes) -> bool:
    binary = head[0] == 0x80 and len(head) > 1 and 1 <= head[1] <= 6
    return binary or _TEXT_PICKLE.match(head) is not None


def _refuse_pickle(source: Source, head: bytes) -> Exception:
    if head[2:].startswith(_LEGACY):
        what = "is in the format of torch before 1.6, which needs code to be run"
        return UnsafeFileError(f"{source.name}: {what}; re-save it with torch >= 1.6, where you trust it")
    suffix = source.path.suffix.lower()
    if suffix in (".pth", ".pt", ".ckpt", ".pkl", ".pickle", ""):
        what = "is a bare pickle, which can run any code"
        return UnsafeFileError(f"{source.name}: {what}; ask its author for a .safetensors file")
    claimed = f"is a pickle, not the {show(suffix, 20)} that its name says"
    return FormatError(f"{source.name}: {claimed}; ask its author for a .safetensors file")
