"""An open file that is read by position, never mapped: every read is whole or a TruncatedError."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import torch
from isal.isal_zlib import crc32  # zlib's own is four times slower, and slower than the disk
from torch import Tensor

from rwkvlab.errors import EmptyFileError, FormatError, LimitError, PathError, TruncatedError, show

BLOCK = 1 << 20  # bytes that are read and checksummed at a time: they stay in the processor's cache
SPARSE_FROM, SPARSE_RATIO = 64 << 20, 8

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Source:
    """A regular file opened for reading; name is how messages call it, size its length in bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open without waiting.

        Raises PathError for what is missing, empty or no regular file, LimitError if it is sparse.
        """
        self.path = as_path(path)
        self.name = show(self.path.name)
        self._fd = -1
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            info = os.fstat(self._fd)
        except (OSError, ValueError) as error:
            self.close()
            raise PathError(f"{show(self.path)}: {_why(error, self.path)}") from error
        self.size = info.st_size
        try:
            self._check(info)
        except Exception:
            self.close()
            raise

    def _check(self, info: os.stat_result) -> None:
        if not stat.S_ISREG(info.st_mode):
            kind = _KINDS.get(stat.S_IFMT(info.st_mode), "not a regular file")
            raise PathError(f"{show(self.path)}: is {kind}; give the path of a .pth, .st, .state or .safetensors file")
        if self.size == 0 and not self._is_empty():
            raise PathError(f"{show(self.path)}: is made by the system, as those of /proc are; give a regular file")
        if self.size == 0:
            raise EmptyFileError(f"{self.name}: the file is empty; download or save it again")
        if self.size <= SPARSE_FROM or info.st_blocks * 512 >= self.size // SPARSE_RATIO:
            return
        with suppress(OSError):  # some file systems count the blocks of a new file only once it was written out
            os.fsync(self._fd)
        on_disk = os.fstat(self._fd).st_blocks * 512
        # others count no blocks: there a file is sparse if it has no data at all
        if on_disk < self.size // SPARSE_RATIO and (on_disk or self._is_hole()):
            raise LimitError(
                f"{self.name}: claims {self.size:,} bytes and holds {on_disk:,} on disk; download it again, whole"
            )

    def _is_empty(self) -> bool:
        try:
            return not os.pread(self._fd, 1, 0)
        except OSError:
            return False

    def _is_hole(self) -> bool:
        try:
            os.lseek(self._fd, 0, os.SEEK_DATA)
        except OSError as error:
            return error.errno == errno.ENXIO
        except AttributeError:
            return False
        return False

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`; raises TruncatedError where the file ends first."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise TruncatedError(f"{self.name}: need {offset + size:,} bytes, the file has {self.size:,}; {AGAIN}")
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise TruncatedError(f"{self.name}: got {len(data):,} bytes of {size:,} at {offset:,}; {AGAIN}")
        return data

    def fill(self, tensor: Tensor, offset: int, *, crc: bool = False) -> int:
        """Read the bytes of a contiguous tensor from `offset` in place; returns their CRC-32 where asked, else 0."""
        view = tensor.reshape(-1).view(torch.uint8).numpy().data
        done, total = 0, 0
        while done < len(view):
            block = view[done : done + BLOCK]
            got = os.preadv(self._fd, [block], offset + done)
            if got <= 0:
                raise TruncatedError(f"{self.name}: the file ended at byte {offset + done:,}; {AGAIN}")
            if crc:
                total = crc32(block[:got], total)
            done += got
        return total

    def crc_of(self, offset: int, size: int) -> int:
        """Return the CRC-32 of a stretch of the file, read block by block."""
        total, block = 0, torch.empty(min(size, BLOCK), dtype=torch.uint8)
        view = block.numpy().data
        for start in range(0, size, BLOCK):
            part = block[: min(BLOCK, size - start)]
            self.fill(part, offset + start)
            total = crc32(view[: len(part)], total)
        return total

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0


AGAIN = "download or copy it again"


def as_path(path: object) -> Path:
    """Return a Path; raises PathError for what cannot be one."""
    try:
        text = os.fspath(path)  # type: ignore[call-overload]
    except TypeError as error:
        raise PathError(f"path: need a string or a Path, got {type(path).__name__}") from error
    if not isinstance(text, str) or not text or "\0" in text:
        raise PathError(f"path: need a non-empty string without NUL, got {show(text)}")
    return Path(text)


def _why(error: OSError | ValueError, path: Path) -> str:
    code = getattr(error, "errno", None)
    if code == errno.ENOENT:
        if path.is_symlink():
            return "is a link to a file that does not exist; restore its target"
        return "no such file; check the name and the folder"
    if code == errno.EACCES:
        return "permission denied; make it readable (chmod u+r)"
    if code == errno.ELOOP:
        return "is a link that leads back to itself; give the file itself"
    if code == errno.ENXIO:
        return "is a socket or a pipe without a writer; give a regular file"
    return (
        f"cannot be opened ({getattr(error, 'strerror', None) or type(error).__name__}); give a readable regular file"
    )


def refuse_kind(source: Source, head: bytes) -> FormatError:
    """Return the error for a file that is neither .pth nor safetensors, naming what it is and what to do."""
    fallback = f"no tensor file (it begins with {head[:8].hex(' ')})", "give a .pth, .st, .state or .safetensors file"
    kind, remedy = known_kind(head) or fallback
    suffix = source.path.suffix
    told = not suffix or _SAYS.get(suffix.lower(), suffix[1:].lower()) in kind.lower()
    if remedy.startswith("unpack it first") and _TARS.search(source.path.name):
        remedy = "unpack it first"
    claims = "" if told else f", in spite of its name ending in {show(suffix)}"
    return FormatError(f"{source.name}: is {kind}{claims}; {remedy}")


_SAYS = {".bz2": "bzip2", ".tbz2": "bzip2", ".tbz": "bzip2", ".tgz": "gzip", ".txz": "xz"}
_SAYS |= {".h5": "hdf5", ".npy": "numpy"}  # and other suffixes say themselves
_TARS = re.compile(r"\.(tar\.\w+|t(gz|bz2?|xz|zst))$", re.ASCII | re.IGNORECASE)
_MAGICS: tuple[tuple[bytes, str, str], ...] = (
    (b"GGUF", "a GGUF file", "use the .pth or .safetensors file of the same model"),
    (b"\x1f\x8b", "gzip-compressed", "unpack it first (gunzip)"),
    (b"BZh", "bzip2-compressed", "unpack it first (bunzip2)"),
    (b"\xfd7zXZ\0", "xz-compressed", "unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it first (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x93NUMPY", "a NumPy array file", "save the tensors as .safetensors"),
    (b"\x89HDF", "an HDF5 file", "save the tensors as .safetensors"),
    (b"PK\x05\x06", "an empty zip archive", "download or save it again"),
)


def known_kind(head: bytes) -> tuple[str, str] | None:
    """Return what a file is by its first bytes, and what to do with it; None if that is not known."""
    for magic, kind, remedy in _MAGICS:
        if head.startswith(magic):
            return kind, remedy
    # no text has a zero at its start: the length before a safetensors header, which may begin as a text does, has
    start = b"" if b"\0" in head[:8] else head.removeprefix(b"\xef\xbb\xbf").lstrip()[:400].lower()
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself", "run 'git lfs pull', or download the file"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "an HTML page", "download the raw file (on Hugging Face: 'resolve', not 'blob')"
    if start.startswith((b"<?xml", b"<")):
        return "an XML or HTML text", "download the raw file"
    if start.startswith((b"{", b"[")):
        return "a JSON text", "give the file that holds the tensors"
    # CBOR: a map (or tagged map) whose first key is a text
    if head[:3] == b"\xd9\xd9\xf7" or (0xA1 <= head[0] <= 0xBF and b"\x60" <= head[1:2] <= b"\x7b"):
        return "a CBOR file such as web-rwkv's .prefab model", "use the .pth or .st file it was made from"
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it; files of torch before 1.6: re-save with torch >= 1.6"
    if not head.strip(b"\0"):
        return "filled with zeros", "download or copy it again"
    return None
