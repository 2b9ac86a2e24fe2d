"""A fault at any call of a save, a full disk at any byte, a kill at any moment: the old file or the new one."""

import contextlib
import errno
import fcntl
import io
import itertools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path

import matplotlib.figure
import pandas as pd
import pytest
import torch

from rwkvlab import demo
from rwkvlab.errors import SaveError
from rwkvlab.states.ai00 import write_ai00
from rwkvlab.states.card import StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.state import State
from rwkvlab.tensorfile import atomic, atomic_write

CONFIG = '# mine\n[model]\npath = "models"  # here\n'


def make_state(value, heads=2, width=16):
    return State(torch.full((2, heads, width, width), float(value)), card=StateCard(name=f"s{value}", arch="x070"))


def save_as(suffix):
    """Return (file name, save(folder, value), read(folder) -> value) of a state file."""
    name = f"a{suffix}"

    def save(folder, value, heads=2, width=16):
        save_state(make_state(value, heads, width), folder / name)

    def read(folder):
        values = load_state(folder / name).wkv.unique().tolist()
        assert len(values) == 1
        return values[0]

    return name, save, read


def save_config(folder, value, heads=2, width=16):
    write_ai00({f"s{value}": make_state(value, heads, width)}, folder / "Config.toml")


def read_config(folder):
    """Return the largest value; an entry stands in the config only when its file is whole."""
    text = (folder / "Config.toml").read_text()
    assert text.startswith(CONFIG)
    entries = tomllib.loads(text).get("state", [])
    for entry in entries:
        values = load_state(folder / "models" / entry["path"]).wkv.unique().tolist()
        assert values == [float(entry["name"][1:])]
    return max((float(entry["name"][1:]) for entry in entries), default=0.0)


def save_figure(folder, value):
    """Save the demo's figure and its answers."""
    figure = matplotlib.figure.Figure(figsize=(1, 1), dpi=30)
    figure.text(0, 0, str(value))
    demo._save(folder, figure, pd.DataFrame({"answer": [f"{value}"] * 20}))


def read_figure(folder):
    assert (folder / "demo.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    return (folder / "answers.csv").read_text().count("2\n") / 10


FORMATS = {suffix: save_as(suffix) for suffix in (".pth", ".state", ".safetensors")}
WRITERS = {
    **FORMATS,
    "config": ("Config.toml", save_config, read_config),
    "demo": ("answers.csv", save_figure, read_figure),
}


def prepare(folder):
    (folder / "models").mkdir(parents=True)
    (folder / "Config.toml").write_text(CONFIG)


def temporaries(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".tmp")]


class Faults:
    """Counts the calls of a save that write and lets the n-th raise; some writes are short, fsync is not real."""

    def __init__(self, patch):
        self.calls, self.at, self.error = [], None, None
        for module, name in [(os, "fchmod"), (os, "fchown"), (os, "replace"), (os, "link"), (os, "unlink"),
                             (os, "open"), (os, "scandir"), (fcntl, "flock")]:  # fmt: skip
            patch.setattr(module, name, self.counted(name, getattr(module, name)))
        patch.setattr(os, "fsync", self.counted("fsync", lambda handle: None))
        patch.setattr(atomic, "open", self.open, raising=False)

    def tick(self, name):
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            raise self.error

    def counted(self, name, function):
        def call(*args, **options):
            if name != "open" or os.path.isdir(args[0]):  # the other files opened here are read
                self.tick(name)
            return function(*args, **options)

        return call

    def open(self, path, mode, opener):
        faults = self

        class Raw(io.FileIO):
            def write(self, data):
                faults.tick("write")
                part = memoryview(data).cast("B")
                return super().write(part[: 1 + len(part) // 2] if len(faults.calls) % 3 == 0 else part)

            def close(self):
                if not self.closed:
                    super().close()
                    faults.tick("close")

        return io.BufferedWriter(Raw(path, mode, opener=opener), 512)

    def arm(self, at, error):
        self.calls, self.at, self.error = [], at, error


def outcome(save, *args):
    """Return the error that a save ends with, or None."""
    try:
        save(*args)
    except (Exception, KeyboardInterrupt) as error:
        return error
    return None


def errors():
    codes = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
    return [*(OSError(code, os.strerror(code)) for code in codes), KeyboardInterrupt(), MemoryError()]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_fault_at_any_call_of_a_save_leaves_the_old_file_and_no_other(tmp_path, kind):
    name, save, read = WRITERS[kind]
    path, seen = tmp_path / name, []

    def start():
        shutil.rmtree(tmp_path)
        prepare(tmp_path)
        save(tmp_path, 1)
        return path.read_bytes()

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*may not outlast", UserWarning)
        faults = Faults(patch)
        start()
        before = path.stat().st_ino
        faults.arm(None, None)
        save(tmp_path, 2)
        count = len(faults.calls)
        assert path.stat().st_ino != before  # another file under its name: nothing is written in place
        for at, error in itertools.product(range(count), errors()[:: 4 if kind == "demo" else 1]):
            old = start()
            faults.arm(at, error)
            caught = outcome(save, tmp_path, 2)
            if isinstance(caught, SaveError):
                # where one save writes two files, the message names the one that failed
                assert any(f"{part}'" in str(caught) for part in (name, "s2.state", "demo.png")), caught
                assert error.strerror in str(caught)
                assert path.read_bytes() == old
            elif caught:
                assert caught is error and not isinstance(error, OSError)
                assert path.read_bytes() == old or read(tmp_path) == 2
            else:
                assert path.read_bytes() != old
            seen.append(faults.calls[-1] if len(faults.calls) <= at else faults.calls[at])
            faults.arm(None, None)
            assert not temporaries(tmp_path), (faults.calls, error)
            save(tmp_path, 2)
            assert path.read_bytes() != old and read(tmp_path) == 2
    assert {"write", "fsync", "replace", "flock", "close", "open", "scandir"} <= set(seen)


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    path, calls = tmp_path / "a", []
    path.write_bytes(b"old")
    sync, replace = os.fsync, os.replace

    def record_sync(handle):
        info = os.fstat(handle)
        calls.append("sync folder" if os.path.samestat(info, tmp_path.stat()) else ("sync", info.st_size))
        sync(handle)

    def record_replace(source, target):
        other = os.open(source, os.O_RDWR)
        with contextlib.closing(os.fdopen(other)), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # still ours: no sweep can take it
        calls.append(("replace", Path(source).parent == tmp_path, path.read_bytes(), target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    atomic_write(path, lambda file: file.write(b"new!"))
    assert calls == [("sync", 4), ("replace", True, b"old", path), "sync folder"]
    assert path.read_bytes() == b"new!"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_state_may_be_saved_onto_the_file_that_it_came_from(tmp_path, kind):
    name, save, read = WRITERS[kind]
    save(tmp_path, 3)
    state = load_state(tmp_path / name)
    save_state(state * 2, tmp_path / name)
    assert read(tmp_path) == 6 and state.wkv.unique().tolist() == [3]


def test_nothing_is_written_but_through_atomic_write():
    root = Path(atomic.__file__).parents[1]
    opens = r"\bopen\([^)]*[\"'][wax+]|savefig\((?!file|picture)|\.to_csv\([^i]"
    ways = re.compile(rf"{opens}|\.(write_text|write_bytes|tofile)\(")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if ways.search(path.read_text("utf-8"))}
    # official.py writes into a temporary folder of its own
    assert found == {"tensorfile/atomic.py", "measure/verifying/official.py"}


def test_a_folder_that_cannot_be_synced_is_a_warning_and_the_new_file_stays(tmp_path, monkeypatch):
    path, sync = tmp_path / "a", os.fsync

    def refuse(handle):
        if os.path.samestat(os.fstat(handle), tmp_path.stat()):
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.warns(UserWarning, match=r"a': is saved, but may not outlast a power cut \(Input/output error\)"):
        atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def attempt(kind, folder, path, limit):
    """Save under a limit that stands for the disk; returns whether it went well."""
    old = path.read_bytes()
    with limit:
        caught = outcome(WRITERS[kind][1], folder, 2)
    if caught:
        assert isinstance(caught, SaveError)
        assert f"{path.name}'" in str(caught) and ("large" in str(caught) or "space" in str(caught)), caught
        assert path.read_bytes() == old
        assert not temporaries(folder)
    return caught is None


@contextlib.contextmanager
def file_limit(size):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_disk_that_is_full_at_any_byte_leaves_the_old_file(tmp_path, kind):
    name, save, read = WRITERS[kind]
    path = tmp_path / name
    save(tmp_path, 1)
    size = path.stat().st_size
    near = [at + more for at in (0, 8, 4096, 8192, size) for more in (-2, -1, 0, 1)]
    full = {at for at in (*near, *range(0, size, 41)) if 0 <= at < size}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        assert not any(attempt(kind, tmp_path, path, file_limit(at)) for at in sorted(full))
        assert len(full) > 50 and read(tmp_path) == 1
        assert attempt(kind, tmp_path, path, file_limit(size))
    assert read(tmp_path) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr}")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_disk_that_is_really_full_leaves_the_old_file(small_disk, kind):
    name, save, read = WRITERS[kind]
    save(small_disk, 1)
    results = []
    for pages in range(12):
        with open(small_disk / "filler", "wb", buffering=0) as filler:
            os.posix_fallocate(filler.fileno(), 0, (free(small_disk) - pages) * 4096)
        results.append(attempt(kind, small_disk, small_disk / name, contextlib.nullcontext()))
        (small_disk / "filler").unlink()
        assert read(small_disk) == (2 if results[-1] else 1)
    assert not results[0] and results[-1] and results == sorted(results)


def free(folder):
    return os.statvfs(folder).f_bavail


def save_for_ever(folder, kind):
    """Save again and again, until killed: what a child does."""
    for value in itertools.count(2):
        WRITERS[kind][1](folder, value, heads=8, width=64)


def kill_saves(folder, rounds):
    """Kill a child that saves, `rounds` times at random moments, and look at what is there each time.

    Returns how many kills came in the middle of a save, and left a temporary file.
    """
    chance, inside = random.Random(7), 0
    kinds = [*FORMATS, "config"]
    for turn in range(rounds):
        kind = kinds[turn % len(kinds)]
        own = folder / str(turn)
        prepare(own)
        WRITERS[kind][1](own, 1, heads=8, width=64)
        child = os.fork()
        if not child:
            try:
                save_for_ever(own, kind)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0005, 0.04))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        inside += bool(temporaries(own))
        last = WRITERS[kind][2](own)
        assert last >= 1
        WRITERS[kind][1](own, 10_000, heads=8, width=64)
        assert WRITERS[kind][2](own) == 10_000
        # a kill in the middle of the config's .state leaves its temporary in the folder of models
        assert not temporaries(own), temporaries(own)
        shutil.rmtree(own)
    return inside


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.long)])
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path, rounds):
    # in a process of its own, since a fork of one with threads may hang
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, tmp_path, str(rounds)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= rounds // 20  # else the moments are not those of a save
    print(done.stdout)


if __name__ == "__main__":
    print(kill_saves(Path(sys.argv[1]), int(sys.argv[2])))
