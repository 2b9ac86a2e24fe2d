"""Rows 49 to 53 and 55 to 59: names, links and things that are no files, and files that change under a reader."""

import functools
import os
import socket
import struct

import builders as b
import torch
from builders import heads, saved
from corpus import Case, as_nobody, read_all

from rwkvlab.errors import EmptyFileError, FormatError, PathError, TruncatedError, UnknownNameError
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.tensorfile import read_tensors

STATE = saved(heads())
ALL = "read peek state model"


def kind(name, made):
    """A path at which `made` puts something that is no regular file."""

    def make(folder):
        path = folder / name
        made(path)
        return path

    return make


def _socket(path):
    place = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(place)


def _chain(path):
    (path.parent / "b.pth").symlink_to(path)
    path.symlink_to(path.parent / "b.pth")


NO_FILES = [
    (52, "empty.pth", lambda path: path.write_bytes(b""), EmptyFileError, "the file is empty", ALL),
    (52, "empty.safetensors", lambda path: path.write_bytes(b""), EmptyFileError, "is empty", ALL),
    (52, "folder.pth", os.mkdir, PathError, "is a folder", "read peek state"),
    (52, "folder", os.mkdir, PathError, "is a folder without config.json", "model"),
    (52, "missing.pth", lambda path: None, PathError, "no such file", ALL),
    (52, "socket.pth", _socket, PathError, "socket", ALL),
    (52, "dangling.pth", lambda path: path.symlink_to("nowhere"), PathError, "link to a file that does not exist", ALL),
    (52, "loop.pth", lambda path: path.symlink_to(path), PathError, "leads back to itself", ALL),
    (52, "two_loop.pth", _chain, PathError, "leads back to itself", ALL),
    (52, "to_a_folder.pth", lambda path: path.symlink_to(path.parent), PathError, "folder", ALL),
    (53, "pipe.pth", os.mkfifo, PathError, "named pipe", ALL),
    (53, "to_a_pipe.pth", lambda path: (os.mkfifo(path.parent / "p"), path.symlink_to("p")), PathError, "pipe", ALL),
    (53, "zero.pth", lambda path: path.symlink_to("/dev/zero"), PathError, "a device", ALL),
    (53, "null.safetensors", lambda path: path.symlink_to("/dev/null"), PathError, "a device", ALL),
    (53, "memory.pth", lambda path: path.symlink_to("/proc/self/mem"), PathError, "made by the system", ALL),
    (53, "maps.pth", lambda path: path.symlink_to("/proc/self/maps"), PathError, "made by the system", ALL),
]
CASES = [
    Case(row, name, kind(name, made), error, words, by=by, names_file=False)
    for row, name, made, error, words, by in NO_FILES
]
CASES += [
    Case(52, f"path_{index}", lambda _, path=path: path, PathError, words,
         by=lambda _, path=path: read_tensors(path), names_file=False)
    for index, (path, words) in enumerate([
        (None, "got NoneType"), (5, "got int"), ("", "non-empty"), ("a\0b", "without NUL"), (b"bytes", "non-empty"),
        ("a\ud800", "cannot be opened"), ("x" * 5000, "File name too long"), (["a"], "got list"),
    ])
]  # fmt: skip


def saving(name):
    """Save a state under a name that no system should hold."""

    def save(path):
        save_state(State(torch.ones(1, 1, 2, 2)), path.parent / f"{name}.pth")

    return save


NAMES = {"nul\0": "", "line\n": "position 4", "\x1b[2J": "position 0", "-rf": "odd end", " blank": "odd end"}
NAMES |= {
    "CON": "reserved",
    "nul.x": "reserved",
    "x" * 220: "too long",
    "文" * 80: "too long",
    "a:b": "':' at position 1",
}
NAMES |= {
    "a\u202eb": "position 1",
    "a*": "position 1",
    "a\u2028": "position 1",
    "a\ud800": "position 1",
    "a\u0085": "position 1",
}
CASES += [
    Case(50, f"name_{index}", lambda folder: folder / "x", PathError, words, by=saving(name), names_file=False)
    for index, (name, words) in enumerate(NAMES.items())
]


def twins(path):
    """Ask a shelf with an NFC and an NFD twin for a name that is neither, then for each."""
    shelf = Shelf(path)
    assert sorted(shelf) == sorted(["e\u0301te", "\u00e9te"]), list(shelf)
    assert float(shelf["e\u0301te"].wkv.max()) == 3.0 and float(shelf["\u00e9te"].wkv.max()) == 4.0
    shelf["ete"]


def _twins(folder, suffix):
    save_state(State(torch.full((1, 1, 2, 2), 3.0)), folder / f"e\u0301te{suffix}")
    save_state(State(torch.full((1, 1, 2, 2), 4.0)), folder / f"\u00e9te{suffix}")
    return folder


CASES += [
    Case(49, f"twins{suffix}", functools.partial(_twins, suffix=suffix), UnknownNameError, "ete", by=twins,
         names_file=False)
    for suffix in (".pth", ".state", ".safetensors")
]  # fmt: skip


def undecodable(path):
    """List a folder with a name that is not UTF-8, then ask for a state that is not there."""
    shelf = Shelf(path)
    assert len(shelf) + len(shelf.unreadable) == 1
    repr(shelf), shelf._repr_html_()
    shelf["none"]


def _undecodable(folder, raw):
    with open(os.fsencode(folder) + b"/" + raw, "wb") as file:
        file.write(STATE)
    return folder


CASES += [
    Case(51, f"bytes_{index}", functools.partial(_undecodable, raw=raw), UnknownNameError, "none", by=undecodable,
         names_file=False)
    for index, raw in enumerate([b"\xff.pth", "状态".encode("gbk") + b".pth", b"a\xc3.pth", b"\x80\x1b[2J.pth"])
]  # fmt: skip


def as_another(loader):
    """Load as a user who may only read what all may: by a path from here, as the folders above belong to one user."""

    def load(path):
        top = next(folder for folder in path.parents if folder.name == "files")
        os.chdir(top)
        with as_nobody():
            loader(path.relative_to(top))

    return load


def _closed(folder, name, mode, inner=False):
    """A file that another user may not read, in a place that all may reach."""
    folder.chmod(0o755)
    path = folder / "inner" / name if inner else folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(STATE)
    (path.parent if inner else path).chmod(mode)
    return path


CASES += [
    Case(56, name, functools.partial(_closed, name=name, mode=mode, inner=inner), PathError, "permission denied",
         by=as_another(loader), names_file=False)
    for name, mode, inner, loader in [
        ("mode_000.pth", 0, False, read_all),
        ("mode_200.pth", 0o200, False, load_state),
        ("mode_folder.pth", 0o600, True, read_all),
    ]
]  # fmt: skip


def changing(change):
    """Open a file, change it, and read the tensors on."""

    def load(path):
        with read_tensors(path) as file:
            first, *rest = file
            file.read(first)
            change(path)
            for key in rest:
                file.read(key)

    return load


def _edit(path):
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(struct.pack("<f", 1.5)) + 2] ^= 1
    path.write_bytes(raw)


def _cut(path):
    os.truncate(path, 600)


def _empty(path):
    os.truncate(path, 0)


CASES += [
    Case(57, "edited.pth", STATE, FormatError, "CRC-32 differs", by=changing(_edit)),
    Case(57, "cut.pth", STATE, (TruncatedError, FormatError), "cut", by=changing(_cut)),
    Case(57, "emptied.pth", STATE, TruncatedError, "ended at byte", by=changing(_empty)),
    Case(57, "cut.safetensors", b.safe_of(heads()), TruncatedError, "ended at byte", by=changing(_cut)),
    Case(57, "emptied.safetensors", b.safe_of(heads()), TruncatedError, "ended at byte", by=changing(_empty)),
]
