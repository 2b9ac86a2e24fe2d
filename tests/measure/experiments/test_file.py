"""Runs that were stopped go on from their record: at any moment, exactly, and only where it is theirs."""

import json
import multiprocessing
import os
import random
import re
import signal
import stat
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch

from rwkvlab.errors import ArgError, Cancelled, FormatError, LimitError, PathError, ResumeError, RwkvLabError, SaveError
from rwkvlab.measure.experiments import file as experiment_file
from rwkvlab.measure.experiments import parts as experiment_parts
from rwkvlab.measure.experiments import run as experiment_run
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.model.engine import load_model
from rwkvlab.tasks.task import Task, text_task

TASKS = [
    Task("one", ["ab", "c", "def", "文", "e"], ["x", "yz", "w", "文", ":,[{"]),
    Task("which", ["ab", "c"], ["x", "y"], kind="choice", choices=[("x", "zz"), ("q", "y")]),
    text_task("texts", ["some text", "文"]),
]


@pytest.fixture
def experiment(tiny, random_state):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Experiment(tiny, {"zero": None, "文": random_state("文", 1)}, TASKS, batch=2, max_tokens=4)
    torch.set_num_threads(before)


@pytest.fixture
def counted(monkeypatch):
    """The parts that were answered and not read from a record."""
    seen = []
    real = experiment_parts.answer
    monkeypatch.setattr(experiment_run, "answer", lambda model, part: (seen.append(part), real(model, part))[1])
    return seen


def test_a_run_with_a_record_gives_the_same_and_the_next_one_answers_nothing(experiment, tmp_path, counted):
    whole = experiment.run()
    parts = len(counted)
    assert experiment.run(resume=tmp_path / "a.jsonl").equals(whole) and len(counted) == 2 * parts
    assert experiment.run(resume=str(tmp_path / "a.jsonl")).equals(whole) and len(counted) == 2 * parts
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == 1 + parts and json.loads(lines[0])["rwkvlab"] == "experiment"
    assert os.listdir(tmp_path) == ["a.jsonl"]


def killed(experiment, path, at, moment):
    """Run in a process of its own, which kills itself at the `at`-th line: before, in the middle, or after it."""
    real, seen = os.write, []

    def write(handle, data):
        seen.append(1)
        if len(seen) == at:
            if moment != "before":
                real(handle, data[: len(data) // 2] if moment == "middle" else data)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(handle, data)

    experiment_file.os.write = write
    experiment.run(resume=path)


@pytest.mark.parametrize("moment", ["before", "middle", "after"])
def test_killed_at_any_line_it_goes_on_to_the_same_rows(experiment, tmp_path, counted, moment):
    whole, path = experiment.run(), tmp_path / "a.jsonl"
    parts = len(counted)
    for at in (1, 2, parts):
        path.unlink(missing_ok=True)
        run = multiprocessing.get_context("fork").Process(target=killed, args=(experiment, path, at, moment))
        run.start()
        run.join(60)
        assert run.exitcode == -signal.SIGKILL
        done = at - (moment != "after")
        assert path.read_bytes().count(b"\n") == 1 + done and path.read_bytes().endswith(b"\n") == (moment != "middle")
        counted.clear()
        assert experiment.run(resume=path).equals(whole)
        assert len(counted) == parts - done
        assert experiment.run(resume=path).equals(whole)  # nothing of the cut line is left


def test_killed_before_the_first_line_leaves_nothing_or_a_whole_one(experiment, tmp_path):
    path = tmp_path / "a.jsonl"

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def before_it_has_its_name():
        experiment_file.os.link = die
        experiment.run(resume=path)

    run = multiprocessing.get_context("fork").Process(target=before_it_has_its_name)
    run.start()
    run.join(60)
    assert run.exitcode == -signal.SIGKILL and not path.exists()
    assert experiment.run(resume=path).equals(experiment.run())
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_ctrl_c_keeps_what_is_done_and_says_so(experiment, tmp_path, monkeypatch, counted):
    whole, path = experiment.run(), tmp_path / "a.jsonl"
    parts = len(counted)
    real, calls = experiment_parts.answer, []

    def interrupted(model, part):
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(model, part)

    monkeypatch.setattr(experiment_run, "answer", interrupted)
    with pytest.raises(Cancelled, match=r"what is done is kept in 'a.jsonl', run it again"):
        experiment.run(resume=path)
    assert experiment.run(resume=path).equals(whole) and len(calls) == 3 + parts - 2


def test_an_executor_goes_on_where_another_stopped(experiment, tmp_path, counted):
    whole, path = experiment.run(), tmp_path / "a.jsonl"
    experiment.run(resume=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines[3:]]))  # parts end in any order
    counted.clear()
    with ThreadPoolExecutor(2) as pool:
        assert experiment.run(pool, resume=path).equals(whole)
    assert len(counted) == 2


def test_another_run_is_refused_and_what_differs_is_named(experiment, tiny, random_state, tmp_path):
    path, states = tmp_path / "a.jsonl", dict(experiment.states)
    experiment.run(resume=path)
    kept = path.read_bytes()
    options = {"batch": 2, "max_tokens": 4}
    other = Task("one", TASKS[0].prompts, ["x", "yz", "w", "文", "other"])
    cases = {
        "states: '文' differ": Experiment(tiny, {**states, "文": random_state("文", 2)}, TASKS, **options),
        "states: 'more' differ": Experiment(tiny, {**states, "more": None}, TASKS, **options),
        "states: another order": Experiment(tiny, dict(reversed(states.items())), TASKS, **options),
        "tasks: 'one' differ": Experiment(tiny, states, [other, *TASKS[1:]], **options),
        "max_tokens: '4' there, '5' here": Experiment(tiny, states, TASKS, batch=2, max_tokens=5),
        "batch: '2' there, '3' here": Experiment(tiny, states, TASKS, batch=3, max_tokens=4),
    }
    for said, run in cases.items():
        with pytest.raises(ResumeError) as caught:
            run.run(resume=path)
        assert said in str(caught.value) and "another path" in str(caught.value), said
    assert path.read_bytes() == kept


def test_another_model_is_refused(experiment, tmp_path, monkeypatch):
    from rwkvlab.states.card import ModelCard

    experiment.run(resume=tmp_path / "a.jsonl")
    monkeypatch.setattr(experiment.model, "card", ModelCard("m", "x070", "0" * 64))
    experiment.states = {"zero": None}
    with pytest.raises(ResumeError, match=r"model: .*states: '文' differ"):
        experiment.run(resume=tmp_path / "a.jsonl")


def test_other_weights_of_the_same_signs_and_other_vocabularies_are_refused(tiny_file, tmp_path):
    def run(model, path):
        return Experiment(model, [None], Task("t", ["ab"], ["c"], template="world"), max_tokens=3).run(resume=path)

    lines = [f"{i + 1} {bytes([i])!r} 1\n" for i in range(256)]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "v.txt").write_text("".join(lines))
    (tmp_path / "two" / "v.txt").write_text("".join([*lines[:97], f"98 {b'b'!r} 1\n", f"99 {b'a'!r} 1\n", *lines[99:]]))
    weights = torch.load(tiny_file)
    weights["head.weight"] *= 3
    torch.save(weights, tmp_path / "tiny.pth")
    vocab = tmp_path / "one" / "v.txt"
    run(load_model(tiny_file, tokenizer=vocab), tmp_path / "a.jsonl")
    with pytest.raises(ResumeError, match=r"another run \(weights: '[^;]*' here\)"):
        run(load_model(tmp_path / "tiny.pth", tokenizer=vocab), tmp_path / "a.jsonl")
    with pytest.raises(ResumeError, match=r"another run \(vocabulary: '[^;]*' here\)"):
        run(load_model(tiny_file, tokenizer=tmp_path / "two" / "v.txt"), tmp_path / "a.jsonl")
    run(load_model(tiny_file, tokenizer=Shifted(1)), tmp_path / "b.jsonl")
    run(load_model(tiny_file, tokenizer=Shifted(1)), tmp_path / "b.jsonl")
    with pytest.raises(ResumeError, match=r"another run \(vocabulary: '[^;]*' here\)"):
        run(load_model(tiny_file, tokenizer=Shifted(2)), tmp_path / "b.jsonl")


class Shifted:
    """A tokenizer that cannot be looked into."""

    def __init__(self, by):
        self.by = by

    def encode(self, text):
        return [ord(char) + self.by for char in text]

    def decode(self, ids):
        return "".join(chr(abs(index - self.by)) for index in ids)


LINES = {
    "not JSON": b"{\n",
    "an array": b"[]\n",
    "no part": b'{"part": -1, "said": [], "logprob": []}\n',
    "a part that is true": b'{"part": true, "said": [], "logprob": []}\n',
    "a part too far": b'{"part": 10000000000000000000000, "said": [], "logprob": []}\n',
    "a part that is text": b'{"part": "\x1b[31m", "said": [], "logprob": []}\n',
    "no texts": b'{"part": 0, "said": [], "logprob": []}\n',
    "said nothing": b'{"part": 0, "said": [null, null], "logprob": [["-0x1p0"], ["-0x1p0"]]}\n',
    "numbers": b'{"part": 0, "said": ["", ""], "logprob": [[-1.0], [-1.0]]}\n',
    "a nan": b'{"part": 0, "said": ["", ""], "logprob": [["nan"], ["-0x1p0"]]}\n',
    "a probability of two": b'{"part": 0, "said": ["", ""], "logprob": [["0x1p0"], ["-0x1p0"]]}\n',
    "an overflow": b'{"part": 0, "said": ["", ""], "logprob": [["-0x1p99999"], ["-0x1p0"]]}\n',
    "too few": b'{"part": 0, "said": ["", ""], "logprob": [["-0x1p0"], []]}\n',
    "a table": b'{"part": 0, "said": ["", ""], "logprob": {"a": 1}}\n',
    "nested": b'{"part": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "twice a name": b'{"part": 0, "part": 1, "said": ["", ""], "logprob": [["-0x1p0"], ["-0x1p0"]]}\n',
    "not UTF-8": b'{"part": "\xff"}\n',
    "zeros": b"\0" * 50 + b"\n",
    "many things": b'{"part": [' + b"0," * 600_000 + b"0]}\n",
}


def sealed(line):
    """The line with the checksum that it would have if a run had written it, where it is an object."""
    return experiment_file._sealed(line[:-1].decode()) if line.endswith(b"}\n") and b"\xff" not in line else line


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_no_run_wrote_is_refused_by_its_number(experiment, tmp_path, name):
    path = tmp_path / "a.jsonl"
    experiment.run(resume=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + sealed(LINES[name]) + lines[1])
    with pytest.raises((FormatError, LimitError), match=r"'a.jsonl': line 3") as caught:
        experiment.run(resume=path)
    assert str(caught.value).isprintable() and "delete the file" in str(caught.value) and len(str(caught.value)) < 400


def test_no_bit_of_a_line_can_change_unseen(experiment, tmp_path):
    path = tmp_path / "a.jsonl"
    whole = experiment.run(resume=path)
    raw, rng = path.read_bytes(), random.Random(0)
    ends = [at for at, byte in enumerate(raw) if byte == 10]
    for _ in range(60):
        at = rng.randrange(len(raw) - 1)
        flipped = bytearray(raw)
        flipped[at] ^= 1 << rng.randrange(8)
        if at in ends or flipped.count(10) > len(ends):
            continue  # another number of lines: told by what is left of them, or cut off
        path.write_bytes(flipped)
        with pytest.raises(RwkvLabError, match=r"line [0-9]+: "):
            experiment.run(resume=path)
    digit = raw.rindex(b'"-0x1.') + 6  # a number that would be one too
    path.write_bytes(raw[:digit] + (b"1" if raw[digit : digit + 1] != b"1" else b"2") + raw[digit + 1 :])
    with pytest.raises(FormatError, match=r"is damaged, its crc32 does not fit; .*delete the file"):
        experiment.run(resume=path)
    path.write_bytes(raw)
    assert experiment.run(resume=path).equals(whole)


def test_a_file_of_a_version_without_checksums_is_refused(experiment, tmp_path):
    path = tmp_path / "a.jsonl"
    experiment.run(resume=path)
    path.write_bytes(re.sub(rb', "crc32": "[0-9a-f]+"', b"", path.read_bytes()))
    with pytest.raises(FormatError, match=r"line 1: has no crc32 .*older versions.*delete the file"):
        experiment.run(resume=path)


def test_a_line_that_is_there_twice_is_one(experiment, tmp_path, counted):
    path = tmp_path / "a.jsonl"
    whole = experiment.run(resume=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    counted.clear()
    assert experiment.run(resume=path).equals(whole) and not counted


def test_a_part_that_is_there_twice_and_files_that_are_none_are_refused(experiment, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    experiment.run(resume=path)
    lines = path.read_bytes().splitlines(keepends=True)
    data = json.loads(lines[1])
    assert data.pop("crc32") and data["part"] == 0
    data["said"][0] = "else"
    other = experiment_file._sealed(json.dumps(data))
    cases = {
        b"".join([*lines, other]): "part 0 is there twice, with two results",
        b"": "is empty",
        b"my notes": "no record",
        b"my notes\n": "line 1: not JSON",
        b'{"a": 1}\n': "line 1: is no record",
        b"[" * 100: "no record",
    }
    for raw, said in cases.items():
        path.write_bytes(raw)
        with pytest.raises(FormatError, match=said):
            experiment.run(resume=path)
        assert path.read_bytes() == raw  # as it was
    monkeypatch.setattr(experiment_file, "MAX_LINE", 10)
    path.write_bytes(b"".join(lines))
    with pytest.raises(LimitError, match=r"a line of more than 10 bytes"):
        experiment.run(resume=path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing folder", "number", "nul", "read-only"])
def test_a_path_that_cannot_be_is_told(experiment, tmp_path, kind):
    path = tmp_path / "a.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write anything")
        experiment.run(resume=path)
        path.chmod(stat.S_IRUSR)
    else:
        path = {"missing folder": tmp_path / "no" / "a.jsonl", "number": 3, "nul": "a\0"}[kind]
    with pytest.raises(PathError):
        experiment.run(resume=path)


def test_a_file_that_another_process_writes_to_is_refused(experiment, tmp_path):
    path = tmp_path / "a.jsonl"
    experiment.run(resume=path)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()

    def hold():
        import fcntl

        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            ready.set()
            done.wait(60)

    other = context.Process(target=hold)
    other.start()
    assert ready.wait(60)
    with pytest.raises(ResumeError, match=r"is in use by another run"):
        experiment.run(resume=path)
    done.set()
    other.join(60)
    assert isinstance(experiment.run(resume=path), pd.DataFrame)


def test_a_file_that_another_thread_writes_to_is_refused_and_stays_locked(experiment, tmp_path, monkeypatch):
    path, link, real, met = tmp_path / "a.jsonl", tmp_path / "link.jsonl", experiment_parts.answer, []
    link.symlink_to(path)
    whole = experiment.run()

    def answer(model, part):
        monkeypatch.setattr(experiment_run, "answer", real)  # once, while the file is open
        for name in (path, link):
            with ThreadPoolExecutor(1) as threads, pytest.raises(ResumeError, match="is in use by another run"):
                threads.submit(experiment.run, resume=name).result()
        other = multiprocessing.get_context("fork").Process(target=locked, args=(path,))
        other.start()
        other.join(60)
        met.append(other.exitcode)
        return real(model, part)

    monkeypatch.setattr(experiment_run, "answer", answer)
    assert experiment.run(resume=path).equals(whole) and met == [7]
    assert not experiment_file._TAKEN and experiment.run(resume=link).equals(whole)


def locked(path):
    """Leave with 7 where the system says that a file is locked."""
    import fcntl

    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(7)
    os._exit(0)


def test_a_full_disk_is_told_and_leaves_whole_lines(experiment, tmp_path, monkeypatch):
    import errno

    whole, path, real, seen = experiment.run(), tmp_path / "a.jsonl", os.write, []

    def write(handle, data):
        seen.append(1)
        if len(seen) == 3:
            return real(handle, data[:10])
        if len(seen) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(experiment_file.os, "write", write)
    with pytest.raises(SaveError, match=r"'a.jsonl': a part could not be added .No space"):
        experiment.run(resume=path)
    assert path.read_bytes().count(b"\n") == 3 and path.read_bytes().endswith(b"\n")
    assert experiment.run(resume=path).equals(whole)


def test_parts_too_large_for_a_line_are_refused_before_they_are_answered(experiment, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(experiment_file, "MAX_MARKS", 8)
    with pytest.raises(ArgError, match=r"batch: a part has"):
        experiment.run(resume=tmp_path / "a.jsonl")
    assert not counted


def test_what_a_model_says_cannot_make_its_own_record_unreadable(experiment, tmp_path, monkeypatch):
    real = experiment_parts.answer
    said = '":,[{' * 150_000 + "\u2028\n\\"

    def answer(model, part):
        found = real(model, part)
        return experiment_parts.Answered(tuple(text and said for text in found.said), found.logprobs)

    monkeypatch.setattr(experiment_run, "answer", answer)
    first = experiment.run(resume=tmp_path / "a.jsonl")
    assert said in set(first["said"]) and experiment.run(resume=tmp_path / "a.jsonl").equals(first)


def test_every_cut_of_the_file_goes_on_or_is_refused(experiment, tmp_path):
    """Whatever length is left of it, the result is the same, or an error of ours says why not."""
    whole, path = experiment.run(), tmp_path / "a.jsonl"
    experiment.run(resume=path)
    raw = path.read_bytes()
    head = raw.index(b"\n") + 1
    for size in (0, 1, head - 1, head, head + 1, raw.index(b"\n", head), len(raw) - 1):
        path.write_bytes(raw[:size])
        if size < head:
            with pytest.raises(RwkvLabError):
                experiment.run(resume=path)
        else:
            assert experiment.run(resume=path).equals(whole)
