"""The judge of hostile files: they are loaded in a process that is watched for code, writes, memory and time."""

import contextlib
import functools
import gc
import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
REMEDIES += ("is damaged", "correct", "keep ", "copy ", "is it a", "are broken", "did you mean", "has the names")

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
    """Note what must not happen while a file is loaded; a hook cannot be taken off again, so it lives in a child."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def hook(event, arguments):
        if event.startswith(WATCHED) or (event == "open" and arguments[2] & writing):
            seen.append(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)


def in_child(works):
    """Return what each function of a list returns (as JSON), all called in one forked process.

    The process is killed where one of them takes more than PATIENCE seconds; what it still owed is then missing.
    """
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.close(reader)
            torch.set_num_threads(1)
            gc.freeze()  # what the tests before have left is not looked through again in every collection
            with os.fdopen(writer, "w") as pipe:
                for work in works:
                    print(json.dumps(work()), file=pipe, flush=True)
        finally:
            os._exit(0)
    os.close(writer)
    raw = bytearray()
    while select.select([reader], [], [], PATIENCE)[0] and (part := os.read(reader, 1 << 20)):
        raw += part
    os.close(reader)
    os.kill(child, signal.SIGKILL)  # gone already, if all went well
    os.waitpid(child, 0)
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def _memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) << 10


def attempt(case: Case, path: Path, cage: Path, seen: list[str]) -> dict:
    """Load a file in this process and return what happened: outcomes by loader, seconds, memory, what was watched."""
    os.chdir(cage)
    files = path.parent.rglob("*") if isinstance(path, Path) else ()
    room = max(MEMORY, 8 * sum(file.stat().st_blocks * 512 for file in files if file.is_file()))
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + room + (64 << 20), resource.RLIM_INFINITY))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = _memory("VmHWM")
    loaders = {name: LOADERS[name] for name in case.by.split()} if isinstance(case.by, str) else {"call": case.by}
    outcomes, slowest = {}, 0.0
    seen.clear()
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
    watched = [] if "call" in outcomes else list(seen)  # what the tests call may write
    return {"outcomes": outcomes, "seconds": slowest, "grown": _memory("VmHWM") - before, "room": room, "seen": watched}


def complaints(case: Case, path: Path, cage: Path, report: dict) -> Iterator[str]:
    """Yield what is wrong with how a hostile file was refused."""
    kinds = case.error if isinstance(case.error, tuple) else (case.error,)
    for loader, (kind, message) in report["outcomes"].items():
        wrong = {
            "another kind": kind not in [error.__name__ for error in kinds],
            f"without {case.words!r}": case.words not in message,
            "without its name": case.names_file and show(path.stem, 40)[1:30].rstrip("'…") not in message,
            "without a remedy": not any(word in message for word in REMEDIES),
            f"{len(message)} characters": len(message) > 400,
            "not printable": not message.isprintable(),
        }
        yield from (f"{loader}: {why}: {kind}: {message!r}" for why, bad in wrong.items() if bad)
    if report["seen"] or any(cage.iterdir()):
        yield f"it ran: {report['seen']} {os.listdir(cage)}"
    if report["seconds"] >= SECONDS:
        yield f"it took {report['seconds']:.2f} s"
    if report["grown"] >= report["room"]:
        yield f"it took {report['grown'] >> 20} MiB, at most {report['room'] >> 20}"


def judge(cases: Sequence[Case], folder: Path) -> list[str]:
    """Hold hostile files to the contract, in one process of their own; returns what is wrong, a line for each."""
    seen: list[str] = []
    places = []
    for index, case in enumerate(cases):
        cage, files = folder / f"{index}" / "cage", folder / f"{index}" / "files"
        cage.mkdir(parents=True)
        files.mkdir()
        places.append((case, case.place(files), cage))

    def begin():
        warnings.simplefilter("ignore")
        _watch(seen)

    works = [functools.partial(attempt, *place, seen) for place in places]
    reports = in_child([begin, *works])[1:]
    wrong = [f"{case.name}: {text}" for (case, *rest), report in zip(places, reports, strict=False)
             for text in complaints(case, *rest, report)]  # fmt: skip
    if len(reports) < len(places):
        wrong.append(f"{cases[len(reports)].name}: its process died, or took more than {PATIENCE} s")
    return wrong


@contextlib.contextmanager
def as_nobody():
    """Give up root, which may read everything, for a while."""
    user = os.getuid()
    if user == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)
            os.setegid(0)
