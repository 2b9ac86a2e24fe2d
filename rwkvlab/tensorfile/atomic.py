"""atomic_write: a file is replaced whole or stays as it was."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
import secrets
import stat
import time
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rwkvlab.errors import PathError, RwkvLabError, SaveError, show
from rwkvlab.tensorfile.source import as_path

_TEMPORARY = re.compile(r"\.tmp-rwkvlab-([0-9a-f]{8})-[0-9a-f]{16}")
_STALE = 24 * 3600  # seconds after which a temporary file cannot belong to a save that still runs
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
# of file systems without hard links
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_REMEDIES = {errno.ENOSPC: "make room there", errno.EDQUOT: "make room there", errno.EIO: "check the disk"}
_REMEDIES |= {errno.EACCES: "make the folder writable", errno.EPERM: "make the folder writable"}
_REMEDIES |= {errno.EROFS: "mount it for writing"}
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


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], object], *, overwrite: bool = True) -> Path:
    """Write a file by `write(file)` so that others see the old one or the new one, never a part; returns its path.

    A link is followed and its target replaced. An old file's permissions and owner are kept, a new one's follow the
    umask. A file that is read-only, or another's and cannot stay so, is refused; with overwrite=False any that is
    there, also one that appears meanwhile. Raises PathError for a path that cannot be, SaveError where the system
    refuses: what was there is then untouched. What killed saves left in the folder is removed first.
    """
    given = as_path(path)
    check_name(given.name)
    target, old = _look(given, overwrite)
    _sweep(target.parent)
    temporary = f"{target.parent}/.tmp-rwkvlab-{_host()}-{secrets.token_hex(8)}"
    file, placed = None, False
    try:
        file = _create(temporary, 0o666 if old is None else 0o600)
        if old is not None:
            _take_after(old, file.fileno(), given)
        write(file)
        file.flush()
        os.fsync(file.fileno())
        # the file stays open, and so locked, until it has its name: no other save's sweep can take it away
        if overwrite:
            os.replace(temporary, target)
        else:
            _place_new(temporary, target, given)
        placed = True
        _sync_folder(target.parent, given)
    except RwkvLabError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SaveError(
            f"{show(given, 300)}: could not be written ({why}); what was there before is untouched; "
            f"{_REMEDIES.get(error.errno or 0, 'try again')}, or save to another folder"
        ) from error
    finally:
        if not placed:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if file is not None:
            with contextlib.suppress(OSError):  # all bytes were synced, or an error is on its way
                file.close()
    return target


def _look(given: Path, overwrite: bool) -> tuple[Path, os.stat_result | None]:
    """Return the file that a path leads to, through links, and what is there; refuses what must not be replaced."""
    name = show(given, 300)
    try:
        target = given.resolve()
        old = target.stat() if os.path.lexists(target) else None
        folder = target.parent.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        odd = "a character that this system cannot write" if isinstance(error, ValueError) else "a link to itself"
        why = getattr(error, "strerror", None) or odd
        raise PathError(f"{name}: {why}; give a path in a folder that exists") from error
    if not folder:
        raise PathError(f"{name}: no such folder {show(target.parent, 300)}; make it first")
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise PathError(f"{name}: is there and no regular file; choose another name")
    if not overwrite and os.path.lexists(given):
        raise _taken(given)
    if old is not None and not (old.st_mode & 0o222 and os.access(target, os.W_OK)):
        raise PathError(f"{name}: is there and read-only; choose another name, or make it writable (chmod u+w)")
    return target, old


def _create(temporary: str, mode: int) -> BinaryIO:
    """Open a new file and lock it; the system itself applies the umask to `mode`."""
    while True:
        file = open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, mode))  # noqa: SIM115
        try:
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another save's sweep came between the two


def _take_after(old: os.stat_result, handle: int, given: Path) -> None:
    """Give a new file the owner, group and permissions of the old one; never its setuid bits."""
    mode, new = stat.S_IMODE(old.st_mode) & 0o777, os.fstat(handle)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(handle, old.st_uid, old.st_gid)
        except OSError as error:
            if new.st_uid != old.st_uid:
                raise SaveError(
                    f"{show(given, 300)}: belongs to another user (uid {old.st_uid}) and is untouched; "
                    "choose another name"
                ) from error
            mode &= 0o707  # these were meant for another group
    os.fchmod(handle, mode)


def _place_new(temporary: str, target: Path, given: Path) -> None:
    """Move the file to a name that nobody has, or raise SaveError: one step of the system, so that no one is lost."""
    try:
        try:
            os.link(temporary, target)
            os.unlink(temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _replace_own(temporary, target)
    except FileExistsError as error:
        raise _taken(given) from error


def _replace_own(temporary: str, target: Path) -> None:
    """Take a name by an empty file and replace just that one; where this fails the name is free again."""
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    mine = os.fstat(handle)
    os.close(handle)
    try:
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            if os.path.samestat(mine, os.lstat(target)):
                os.unlink(target)
        raise


def _taken(given: Path) -> SaveError:
    return SaveError(f"{show(given, 300)}: is there already; choose another name, or pass overwrite=True")


def _sync_folder(folder: Path, given: Path) -> None:
    """Make the new name last; where the disk fails here the file is already the new one, so this only warns."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            text = f"{show(given, 300)}: is saved, but may not outlast a power cut ({error.strerror}); check the disk"
            warnings.warn(text, stacklevel=3)


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode('utf-8', 'replace')):08x}"


def _sweep(folder: Path) -> None:
    """Remove what killed saves left: files of this host that nobody has locked, and any not written to for a day.

    A lock ends with its process, whatever container it ran in and whoever has its number now.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [(entry, match[1]) for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
        for entry, host in found:
            with contextlib.suppress(OSError):
                _remove_if_stale(entry, host)


def _remove_if_stale(entry: os.DirEntry[str], host: str) -> None:
    info = entry.stat(follow_symlinks=False)
    old = info.st_mtime < time.time() - _STALE
    if not stat.S_ISREG(info.st_mode) or not (old or host == _host()):
        return
    handle = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not old:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(entry.path)
    finally:
        os.close(handle)
