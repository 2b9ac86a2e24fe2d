"""Every hostile file is refused by kind, file, field and remedy, with nothing run, in bounds of time and memory."""

import contextlib
import functools
import os
import pickle
import time

import builders
import pytest
import rows_config
import rows_models
import rows_paths
import rows_pickle
import rows_safetensors
import rows_states
import rows_zip
from corpus import Case, in_child, judge

from rwkvlab.errors import FormatError, LimitError

TABLES = (rows_pickle, rows_zip, rows_safetensors, rows_states, rows_models, rows_paths, rows_config)
CASES = [case for table in TABLES for case in table.CASES]


ROWS = sorted({case.row for case in CASES})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", ROWS)
def test_hostile_files_of_row(row, tmp_path):
    wrong = judge([case for case in CASES if case.row == row], tmp_path)
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong)


def _burn(path):
    end = time.process_time() + 2.1
    while time.process_time() < end:
        pass


def test_the_judge_finds_fault_with_files_that_are_read_or_refused_otherwise(tmp_path):
    honest, other = builders.archive(), builders.archive(suffix=b"x")
    good = Case(1, "good.pth", other, FormatError, "bytes follow", by="read")
    for name, raw, error, by, found in [
        ("read.pth", honest, FormatError, "read", "it was accepted"),
        ("kind.pth", other, LimitError, "read", "another kind"),
        ("words.pth", other, FormatError, "read", "without 'belong'"),
        ("canary.pth", honest, FormatError, lambda path: open("canary", "w").close(), "it ran"),
        ("slow.pth", honest, FormatError, _burn, "it took 2"),
        ("large.pth", honest, FormatError, lambda path: bytearray(400 << 20), "untyped MemoryError"),
        ("wide.pth", honest, FormatError, lambda path: len(b"x" * (270 << 20)), "MiB, at most 256"),
        ("killed.pth", honest, FormatError, lambda path: os.kill(os.getpid(), 9), "its process died"),
    ]:
        wrong = judge([good, Case(1, name, raw, error, "belong", by)], tmp_path / name)
        assert any(found in line for line in wrong), (name, wrong)
        assert all(line.startswith(name) for line in wrong), wrong


def test_the_bait_is_live(tmp_path):
    """The gadgets do harm to a reader that follows them: pickle itself leaves canaries."""
    live = ["os.system", "os.mkdir", "builtins.eval", "builtins.open", "subprocess.run", "subprocess.getoutput"]
    live += ["tempfile.mkdtemp", "sqlite3.connect", "logging.FileHandler"]

    def follow(name):
        place = tmp_path / name
        place.mkdir()
        os.chdir(place)
        with contextlib.suppress(Exception):
            pickle.loads(rows_pickle.gadget(name))
        return os.listdir(place)

    traces = in_child([functools.partial(follow, name) for name in live])
    assert len(traces) == len(live) and all(traces), dict(zip(live, traces, strict=False))
