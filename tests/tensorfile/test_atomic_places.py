"""What stands in a save's way: links, folders, read-only files, other owners, other savers and their leftovers."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from rwkvlab.errors import PathError, SaveError
from rwkvlab.tensorfile import atomic, atomic_write

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def put(path, data=b"new", **options):
    return atomic_write(path, lambda file: file.write(data), **options)


def leftover(folder, host=None, age=0, number=0):
    path = folder / f".tmp-rwkvlab-{host or atomic._host()}-{number:016x}"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_link_to_nothing_makes_its_target(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    assert put(link) == tmp_path / "target"
    assert link.is_symlink() and link.read_bytes() == b"new"


def test_a_link_into_another_folder_is_followed_and_the_temporary_lies_there(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other/target")
    seen = []
    atomic_write(tmp_path / "link", lambda file: seen.extend(os.listdir(tmp_path / "other")))
    assert len(seen) == 1 and seen[0].startswith(".tmp-rwkvlab-")
    assert os.listdir(tmp_path / "other") == ["target"]


def test_links_that_lead_nowhere_are_path_errors(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "far").symlink_to("none/target")
    for name in ("loop", "one", "two", "far"):
        with pytest.raises(PathError, match=f"{name}'"):
            put(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["far", "loop", "one", "two"]


def test_folders_pipes_and_what_lies_under_a_file_are_path_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder")
    for name in ("pipe", "folder", "link", "file/under", "none/under"):
        with pytest.raises(PathError, match=name.partition("/")[0]):
            put(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not list((tmp_path / "folder").iterdir())


def test_a_read_only_file_is_never_replaced(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o444)
    link.symlink_to(path)
    for each in (path, link):
        with pytest.raises(PathError, match=r"read-only.*chmod u\+w"):
            put(each)
    assert path.read_bytes() == b"old" and stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.skipif(not AS_ROOT, reason="needs root")
def test_the_owner_and_the_group_of_a_file_stay(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)
    path.chmod(0o660)
    put(path)
    info = path.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 4321, 0o660)


@pytest.mark.skipif(not AS_ROOT, reason="needs root, to make a file of another user")
def test_another_user_s_file_is_refused_where_it_cannot_stay_theirs(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, -1)

    def refuse(*args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(SaveError, match=r"a': belongs to another user \(uid 1234\)"):
        put(path)
    assert path.read_bytes() == b"old" and path.stat().st_uid == 1234 and os.listdir(tmp_path) == ["a"]


def test_permissions_meant_for_another_group_are_not_given_to_ours(tmp_path, monkeypatch):
    path, stat_of = tmp_path / "a", os.fstat
    path.write_bytes(b"old")
    path.chmod(0o664)

    def refuse(*args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def other_group(handle):
        info = list(stat_of(handle))
        info[stat.ST_GID] += 1
        return os.stat_result(info)

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "fstat", other_group)
    put(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604 and path.read_bytes() == b"new"


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_to_is_a_save_error(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(SaveError, match="Permission denied"):
            put(tmp_path / "a")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664), (0, 0o666)])
def test_a_new_file_follows_the_umask(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        path = put(tmp_path / "a")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_umask_of_other_threads_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", None)
    put(tmp_path / "a")


def test_an_old_mode_is_kept_but_for_the_bits_that_run_a_file_as_its_owner(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o6755)
    put(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_private_file_is_private_while_it_is_written(tmp_path):
    path, modes = tmp_path / "a", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    atomic_write(path, lambda file: modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)))
    assert modes == [0o600]


def test_what_is_there_is_kept_where_overwriting_is_forbidden(tmp_path):
    path = tmp_path / "a"
    assert put(path, b"first", overwrite=False) == path
    (tmp_path / "link").symlink_to("none")
    for each in (path, tmp_path / "link"):
        with pytest.raises(SaveError, match=f"{each.name}': is there already"):
            put(each, b"second", overwrite=False)
    assert path.read_bytes() == b"first"
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_during_the_save_is_kept_where_overwriting_is_forbidden(tmp_path, monkeypatch, links):
    def refuse(*args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a"
    with pytest.raises(SaveError, match="a': is there already"):
        atomic_write(path, lambda file: path.write_bytes(b"theirs"), overwrite=False)
    assert path.read_bytes() == b"theirs" and os.listdir(tmp_path) == ["a"]
    assert put(tmp_path / "b", overwrite=False).read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_a_new_name_is_free_again_where_the_file_cannot_take_it(tmp_path, monkeypatch, code):
    def refuse(number):
        def call(*args):
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "link", refuse(code))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse(errno.ENOSPC))
        with pytest.raises(SaveError, match=r"No space left.*; make room there, or save to another folder$"):
            put(tmp_path / "a", overwrite=False)
    assert not os.listdir(tmp_path)
    assert put(tmp_path / "a", overwrite=False).read_bytes() == b"new"


def test_another_s_file_is_kept_where_ours_cannot_take_the_name(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def theirs(*args):
        (tmp_path / "theirs").write_bytes(b"theirs")
        (tmp_path / "theirs").rename(tmp_path / "a")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", theirs)
    with pytest.raises(SaveError, match="check the disk"):
        put(tmp_path / "a", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"theirs" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EACCES, "make the folder writable"),
        (errno.EROFS, "mount it for writing"),
        (errno.EIO, "check the disk"),
        (errno.ETIMEDOUT, "try again"),
    ],
)
def test_what_to_do_follows_from_what_the_system_said(tmp_path, monkeypatch, code, remedy):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(SaveError, match=f"; {remedy}, or save to another folder$"):
        put(tmp_path / "a")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_of_savers_that_may_not_overwrite_exactly_one_wins(tmp_path, monkeypatch, links):
    def refuse(*args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path, start, won, lost = tmp_path / "a", threading.Barrier(8), [], []

    def save(number):
        start.wait()
        try:
            put(path, bytes([number]) * 50_000, overwrite=False)
            won.append(number)
        except SaveError:
            lost.append(number)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 7
    assert path.read_bytes() == bytes(won) * 50_000 and os.listdir(tmp_path) == ["a"]


def test_leftovers_of_this_host_are_swept_whoever_has_their_number_now(tmp_path):
    leftover(tmp_path)
    put(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_leftovers_of_other_hosts_wait_a_day(tmp_path):
    fresh, stale = leftover(tmp_path, "00000000", 23 * 3600, 1), leftover(tmp_path, "00000000", 25 * 3600, 2)
    put(tmp_path / "a")
    assert fresh.exists() and not stale.exists()


def test_names_that_only_look_like_leftovers_are_let_alone(tmp_path):
    host = atomic._host()
    (tmp_path / f".tmp-rwkvlab-{host}-{'a' * 16}").mkdir()
    (tmp_path / f".tmp-rwkvlab-{host}-{'b' * 16}").symlink_to("note")
    for name in (".tmp-rwkvlab-notes.txt", f".tmp-rwkvlab-{host}-{'0' * 16}.bak", f"tmp-rwkvlab-{host}-{'0' * 16}"):
        os.utime(leftover(tmp_path).rename(tmp_path / name), (1, 1))
    before = sorted(os.listdir(tmp_path))
    put(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "a"])


def test_one_leftover_that_cannot_be_removed_does_not_spare_the_others(tmp_path, monkeypatch):
    for number in range(3):
        leftover(tmp_path, number=number)
    unlink = os.unlink

    def refuse_one(path, **options):
        if str(path).endswith("1"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse_one)
    put(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == [f".tmp-rwkvlab-{atomic._host()}-{1:016x}", "a"]


def test_the_sweep_spares_a_save_of_another_process_that_still_runs(tmp_path):
    code = (
        "import sys; from rwkvlab.tensorfile import atomic_write\n"
        "def write(f): f.write(b'slow'); print('in', flush=True); input()\n"
        "atomic_write(sys.argv[1], write)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "a"], **pipes) as process:
        assert process.stdout.readline() == b"in\n"
        put(tmp_path / "b")
        assert len(os.listdir(tmp_path)) == 2
        process.communicate(b"\n")
    assert process.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["a", "b"] and (tmp_path / "a").read_bytes() == b"slow"


def test_a_sweep_between_the_making_of_a_temporary_and_its_lock_only_costs_a_second_try(tmp_path, monkeypatch):
    lock, times = fcntl.flock, []

    def late(file, how):
        times.append(how)
        if len(times) == 1:
            atomic._sweep(tmp_path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    put(tmp_path / "a")
    assert len(times) == 3 and os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new"


def test_where_there_are_no_locks_saves_work_and_only_the_day_decides(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    fresh, stale = leftover(tmp_path, number=1), leftover(tmp_path, age=25 * 3600, number=2)
    put(tmp_path / "a")
    assert fresh.exists() and not stale.exists() and (tmp_path / "a").read_bytes() == b"new"


def test_an_interrupt_on_a_full_disk_is_still_an_interrupt(tmp_path):
    def write(file):
        file.write(b"1")
        os.close(file.fileno())  # so that closing it fails too
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a", write)
    assert not os.listdir(tmp_path)


def test_an_error_of_ours_inside_a_save_keeps_its_own_words(tmp_path):
    def write(file):
        raise SaveError("layer 3: holds NaN")

    with pytest.raises(SaveError, match=r"^layer 3: holds NaN$"):
        atomic_write(tmp_path / "a", write)


def test_a_file_in_a_very_long_folder_is_named(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    (folder / "named").mkdir()
    with pytest.raises(PathError, match="named'"):
        put(folder / "named")
