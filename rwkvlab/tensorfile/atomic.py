"""atomic_write: a file is replaced whole or stays as it was."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rwkvlab.errors import PathError, SaveError, show
from rwkvlab.tensorfile.source import as_path

_PREFIX = ".tmp-rwkvlab-"
_STALE = 24 * 3600  # seconds after which a temporary file cannot belong to a save that still runs
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
MAX_NAME = 200  # bytes


def check_name(name: str) -> str:
    """Return a file name that every system can hold; raises PathError naming the character and its position."""
    need = "use letters, digits, blanks, '.', '-' and '_', not at the ends, at most 200 bytes"
    for index, char in enumerate(name):
        if char in '/\\:*?"<>|' or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise PathError(f"file name {show(name)}: {show(char)} at position {index} is not allowed; {need}")
    if not name or name[0] in "- " or name[-1] in ". " or _RESERVED.match(name) or len(name.encode()) > MAX_NAME:
        raise PathError(f"file name {show(name)}: is empty, reserved, too long or has an odd end; {need}")
    return name


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> Path:
    """Write a file by `write(file)` so that others see the old one or the new one, never a part; returns its path.

    A link is followed and its target replaced; the mode of an old file is kept, a new one follows the umask. Raises
    PathError for a name or folder that cannot be, SaveError where the system refuses: what was there is then untouched.
    """
    given = as_path(path)
    check_name(given.name)
    try:
        target = given.resolve()
        mode = target.stat().st_mode & 0o7777 if target.exists() else None
    except (OSError, RuntimeError) as error:
        raise PathError(f"{show(given)}: {type(error).__name__}; give a path in a folder that exists") from error
    if not target.parent.is_dir():
        raise PathError(f"{show(given)}: no such folder {show(target.parent)}; make it first")
    if mode is not None and not target.is_file():
        raise PathError(f"{show(given)}: is there and no regular file; choose another name")
    _sweep(target.parent)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{_own_prefix()}{os.getpid()}-", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o666 & ~_umask() if mode is None else mode)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SaveError(f"{show(given)}: could not be written ({why}); what was there before is untouched") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return target


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some file systems cannot; the new file itself is safe
    finally:
        os.close(handle)


def _own_prefix() -> str:
    return f"{_PREFIX}{zlib.crc32(platform.node().encode('utf-8', 'replace')):08x}-"


def _sweep(folder: Path) -> None:
    """Remove what killed saves left in the folder: those of processes that are gone, and any that are a day old."""
    with contextlib.suppress(OSError):
        for stale in folder.glob(_PREFIX + "*"):
            pid = stale.name.removeprefix(_own_prefix()).partition("-")[0]
            gone = stale.name.startswith(_own_prefix()) and pid.isdecimal() and not _is_running(int(pid))
            if gone or stale.stat().st_mtime < time.time() - _STALE:
                stale.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
