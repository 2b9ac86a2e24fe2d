"""A save is whole or has not happened."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest
import torch

from rwkvlab.errors import PathError, SaveError
from rwkvlab.tensorfile import atomic_write, read_tensors, write_pth, write_safetensors


def old_file(folder):
    path = folder / "a.bin"
    path.write_bytes(b"old")
    return path


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path):
    path = old_file(tmp_path)

    def write(file):
        file.write(b"half of the new")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SaveError, match=r"No space left on device.*untouched") as caught:
        atomic_write(path, write)
    assert isinstance(caught.value, OSError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path):
    path = old_file(tmp_path)

    def write(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["fsync", "replace", "fchmod"])
def test_every_step_that_the_system_refuses_is_a_save_error(tmp_path, monkeypatch, fails):
    path = old_file(tmp_path)

    def refuse(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, fails, refuse)
    with pytest.raises(SaveError, match="Input/output error"):
        atomic_write(path, lambda file: file.write(b"new"))
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_pth, write_safetensors])
def test_a_full_disk_in_the_middle_of_tensors_keeps_the_old_file(tmp_path, write):
    path = old_file(tmp_path)
    code = (
        "import resource, signal, sys, torch; from rwkvlab.tensorfile import *; from rwkvlab.errors import SaveError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"try: {write.__name__}(sys.argv[1], {{'w': torch.ones(9000)}})\n"
        "except SaveError as error: print('SaveError', error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SaveError 'a.bin'") or f"SaveError '{path}'" in done.stdout, done.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_follows_the_umask_and_an_old_mode_is_kept(tmp_path):
    mask = os.umask(0o027)
    try:
        new = atomic_write(tmp_path / "new", lambda file: file.write(b"1"))
        assert stat.S_IMODE(new.stat().st_mode) == 0o640
    finally:
        os.umask(mask)
    new.chmod(0o604)
    atomic_write(new, lambda file: file.write(b"2"))
    assert stat.S_IMODE(new.stat().st_mode) == 0o604


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    target, link = old_file(tmp_path), tmp_path / "link"
    link.symlink_to(target)
    assert atomic_write(link, lambda file: file.write(b"new")) == target
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_file_may_be_saved_onto_itself(tmp_path):
    path = write_pth(tmp_path / "a.pth", {"w": torch.arange(4.0)})
    with read_tensors(path) as file:
        write_pth(path, {"w": file.read("w") + 1})
        assert file.read("w").tolist() == [0, 1, 2, 3]
    with read_tensors(path) as file:
        assert file.read("w").tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "name", ["a\nb", "a\0b", "-rf", " a", "a ", "a.", "CON", "nul.pth", "a:b", "x" * 201, "文" * 70, "a\u202eb", 'a"b']
)
def test_a_name_that_some_system_cannot_hold_is_refused(tmp_path, name):
    with pytest.raises(PathError, match=r"file name|path"):
        atomic_write(f"{tmp_path}/{name}", lambda file: file.write(b"1"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["文言文QA 🎉.state", "rwkv-82%trained (1).pth", "ａ", "é"])
def test_a_name_of_any_script_is_kept_as_it_is(tmp_path, name):
    atomic_write(tmp_path / name, lambda file: file.write(b"1"))
    assert os.listdir(tmp_path) == [name]


def test_a_folder_that_is_missing_or_in_the_way_is_a_path_error(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, words in ((tmp_path / "none" / "a", "no such folder"), (tmp_path / "folder", "no regular file")):
        with pytest.raises(PathError, match=words):
            atomic_write(path, lambda file: file.write(b"1"))


def test_a_killed_save_leaves_the_old_file_and_the_next_save_sweeps_up(tmp_path):
    path = old_file(tmp_path)
    code = (
        "import sys, time; from rwkvlab.tensorfile.atomic import atomic_write\n"
        "def write(f): f.write(b'new'); f.flush(); print('in', flush=True); time.sleep(60)\n"
        "atomic_write(sys.argv[1], write)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2
    atomic_write(path, lambda file: file.write(b"newer"))
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_sweep_spares_a_save_that_still_runs(tmp_path):
    path = tmp_path / "a"

    def write(file):
        atomic_write(tmp_path / "b", lambda other: other.write(b"2"))
        file.write(b"1")

    atomic_write(path, write)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_of_many_savers_one_whole_file_remains(tmp_path):
    path = tmp_path / "a"
    threads = [
        threading.Thread(target=atomic_write, args=(path, lambda file, i=i: file.write(bytes([i]) * 100_000)))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = path.read_bytes()
    assert len(data) == 100_000
    assert len(set(data)) == 1
    assert os.listdir(tmp_path) == ["a"]
