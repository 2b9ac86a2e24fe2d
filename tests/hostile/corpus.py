"""The judge of hostile files: each is loaded in a process of its own, watched for code, writes, memory and time."""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from rwkvlab.errors import RwkvLabError, show
from rwkvlab.model.engine import load_model
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard
from rwkvlab.states.files import load_state, peek_state
from rwkvlab.tensorfile import read_tensors

SECONDS = 2.0  # of processor time; a loader that sleeps is killed after PATIENCE
PATIENCE = 60
MEMORY = 256 << 20
REMEDIES = ("again", "download", "give", "ask", "unpack", "save", "use ", "run ", "need", "pass ", "open it", "get ")
REMEDIES += ("no honest file", "load ", "try ", "writes far fewer", "convert", "rename", "check", "restore", "chmod")
REMEDIES += ("name the", "retrain", "make it", "remove", "merge", "not run here", "update", "choose", "a variant")
REMEDIES += ("is damaged", "are broken", "did you mean", "has the names")

DIMS = Dims("x070", L=2, H=2, C=16, K=8, V=8, ffn=24, vocab=33)
MODEL = SimpleNamespace(dims=DIMS, card=ModelCard("m", "x070", "ab" * 32))


def read_all(path):
    with read_tensors(path) as file:
        return {key: file.read(key) for key in file}


LOADERS: dict[str, Callable] = {
    "read": read_all,
    "peek": peek_state,
    "state": load_state,
    "fit": lambda path: load_state(path, MODEL),
    "model": lambda path: load_model(path, device="cpu"),
}
ALL = "read peek state model"


@dataclass(frozen=True)
class Case:
    """One hostile file: the row of the acceptance list, its name, how it is made, and how it must be refused.

    make is the bytes, or a function of a folder that returns the bytes (large ones) or the path to load; error and
    words are what every loader named in `by` must raise and say. by may also be a function of the path.
    """

    row: int
    name: str
    make: bytes | Callable[[Path], bytes | Path]
    error: type[Exception] | tuple[type[Exception], ...]
    words: str
    by: str | Callable[[Path], object] = ALL
    names_file: bool = True

    def place(self, folder: Path) -> Path:
        """Make the file and return its path."""
        made = self.make if isinstance(self.make, bytes) else self.make(folder)
        if not isinstance(made, bytes) or not self.name:
            return made
        (folder / self.name).write_bytes(made)
        return folder / self.name


WATCHED = ("os.system", "subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "pty.", "socket.")
WATCHED += ("pickle.find_class", "ctypes.dlopen", "shutil.", "os.remove", "os.mkdir", "os.rename", "webbrowser.")


def _watch(seen):
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def hook(event, arguments):
        if event.startswith(WATCHED) or (event == "open" and arguments[2] & writing):
            seen.append(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)


def in_child(work):
    """Return what `work` returns (as JSON) from a forked process, which is killed after PATIENCE seconds."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        status = 1
        try:
            os.close(reader)
            torch.set_num_threads(1)
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        if not select.select([pipe], [], [], PATIENCE)[0]:
            os.kill(child, signal.SIGKILL)
        raw = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the process that loaded it ended with {status} (-9: it took more than {PATIENCE} s)"
    return json.loads(raw)


def attempt(case: Case, path: Path, cage: Path) -> dict:
    """Load a file in this process and return what happened: outcomes by loader, seconds, memory, what was watched."""
    seen: list[str] = []
    os.chdir(cage)
    files = path.parent.rglob("*") if isinstance(path, Path) else ()
    size = sum(file.stat().st_blocks * 512 for file in files if file.is_file())
    room = max(MEMORY, 8 * size)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room + (64 << 20), resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaders = {name: LOADERS[name] for name in case.by.split()} if isinstance(case.by, str) else {"call": case.by}
    outcomes, slowest = {}, 0.0
    warnings.simplefilter("ignore")
    if isinstance(case.by, str):
        _watch(seen)
    for name, loader in loaders.items():
        start = time.process_time()
        try:
            loader(path)
            outcomes[name] = ["", "it was accepted"]
        except RwkvLabError as error:
            outcomes[name] = [type(error).__name__, str(error)]
        except BaseException as error:
            outcomes[name] = [f"untyped {type(error).__name__}", str(error)[:300]]
        slowest = max(slowest, time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"outcomes": outcomes, "seconds": slowest, "grown": grown, "room": room, "seen": seen}


def judge(case: Case, folder: Path) -> dict:
    """Hold a hostile file to the contract; returns what was measured."""
    cage = folder / "cage"
    cage.mkdir()
    (folder / "files").mkdir()
    path = case.place(folder / "files")
    report = in_child(lambda: attempt(case, path, cage))
    kinds = case.error if isinstance(case.error, tuple) else (case.error,)
    for loader, (kind, message) in report["outcomes"].items():
        what = f"{loader}: {kind}: {message!r}"
        assert kind in [error.__name__ for error in kinds], what
        assert case.words in message, what
        assert not case.names_file or show(path.stem, 40)[1:30].rstrip("'…") in message, what
        assert any(word in message for word in REMEDIES), what
        assert len(message) <= 400, f"{len(message)} characters: {what}"
        assert message.isprintable(), what
    assert not report["seen"], report["seen"]
    assert not os.listdir(cage), "a canary was written"
    assert report["seconds"] < SECONDS, f"{report['seconds']:.2f} s"
    assert report["grown"] < report["room"], f"{report['grown'] >> 20} MiB of {report['room'] >> 20}"
    return report


@contextlib.contextmanager
def as_nobody():
    """Give up root, which may read everything; for a forked process only."""
    if os.getuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    yield
