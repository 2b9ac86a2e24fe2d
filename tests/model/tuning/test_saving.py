"""Checkpoints: what was killed goes on to the same bits; what is another run's, damaged or hostile is refused."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from rwkvlab.errors import ArgError, DivergedError, PathError, ResumeError, SaveError
from rwkvlab.model.tuning import tune
from rwkvlab.states.state import State
from rwkvlab.tensorfile import read_tensors, write_safetensors

SETTINGS = {"steps": 12, "batch": 3, "lr": 0.1, "held_out": 0.2, "check": 2, "every": 1}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def stopped_at(model, pairs, path, number, **settings):
    cancel = threading.Event()
    seen = []

    def stop(step):
        seen.append(step)
        if step.step == number:
            cancel.set()

    tune(model, pairs, checkpoint=path, on_step=stop, cancel=cancel, **(SETTINGS | settings))
    return seen


def test_thirty_kills_change_no_bit(tmp_path):
    script = Path(__file__).with_name("kills.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path), "0"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["same"]
    assert found["ends"].count(signal.SIGKILL) == 30
    assert found["steps"] == sorted(set(found["steps"])), "no step that was kept was made again"
    assert found["left"] == ["killed.ckpt", "killed.safetensors", "log", "whole.ckpt", "whole.safetensors"]


@pytest.mark.parametrize("arch", ["x070", "x060", "x052"])
@pytest.mark.parametrize("shifts", [False, True])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(make, pairs, path, arch, shifts):
    model = make(arch)
    whole = tune(model, pairs, shifts=shifts, **{k: v for k, v in SETTINGS.items() if k != "every"})
    assert len(stopped_at(model, pairs, path, 5, shifts=shifts)) == 5
    assert [step.step for step in stopped_at(model, pairs, path, 8, shifts=shifts)] == [6, 7, 8]
    again = tune(model, pairs, checkpoint=path, shifts=shifts, **SETTINGS)
    for name in ("wkv", "att_shift", "ffn_shift"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    assert again.card == whole.card


def test_a_finished_run_is_returned_at_once(model, pairs, path):
    first, seen = tune(model, pairs, checkpoint=path, **SETTINGS), []
    before = path.stat()
    again = tune(model, pairs, checkpoint=path, on_step=seen.append, **SETTINGS)
    assert torch.equal(first.wkv, again.wkv) and first.card == again.card and not seen
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_patience_counts_on(model, path):
    settings = {"steps": 100, "lr": 0.5, "check": 2, "patience": 3, "held_out": [("zz", "never seen"), ("y", "w")]}
    pairs = [("a>", "bcd"), ("ba>", "x"), ("q", "rst")]
    whole = tune(model, pairs, **settings)
    end = int(whole.card.recipe.split()[1])
    stopped_at(model, pairs, path, end - 3, batch=None, **settings)
    seen = []
    again = tune(model, pairs, checkpoint=path, every=1, on_step=seen.append, **settings)
    assert torch.equal(whole.wkv, again.wkv) and whole.card == again.card
    assert [step.step for step in seen] == [end - 2, end - 1, end]


def test_another_run_is_refused_with_every_difference(make, model, pairs, path):
    stopped_at(model, pairs, path, 4)
    before = path.read_bytes()
    with pytest.raises(ResumeError) as caught:
        tune(make(seed=1), pairs[1:], checkpoint=path, seed=1, **(SETTINGS | {"lr": 0.2, "shifts": True}))
    for name in ("model", "weights", "examples", "held_out", "seed: '0' there, '1' here", "shifts"):
        assert name in str(caught.value)
    assert "lr: '0.1' there, '0.2' here" in str(caught.value)
    assert "steps" not in str(caught.value)
    for change in ({"steps": 13}, {"init": State(torch.ones(2, 2, 8, 8), like=model)}, {"template": "raw"}):
        with pytest.raises(ResumeError, match=next(iter(change))):
            tune(model, pairs, checkpoint=path, **(SETTINGS | change))
    assert path.read_bytes() == before


def test_another_place_is_only_told(model, pairs, path):
    stopped_at(model, pairs, path, 4)
    with read_tensors(path) as file:
        tensors, metadata = {key: file.read(key) for key in file}, dict(file.metadata)
    run = json.loads(metadata["run"])
    run["place"]["torch"] = "0.0"
    _write(path, tensors, metadata, json.dumps(run))
    with pytest.warns(UserWarning, match="torch: '0.0' there"):
        tune(model, pairs, checkpoint=path, **SETTINGS)


def _write(path, tensors, metadata, run):
    """A checkpoint with a right seal, whatever is in it."""
    from rwkvlab.model.tuning.saving import _seal

    write_safetensors(path, tensors, metadata | {"run": run, "sha256": _seal(tensors, run)})


def test_a_damaged_checkpoint_is_refused_and_left_alone(model, pairs, path):
    stopped_at(model, pairs, path, 4)
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    places = [0, 3, 9, 40, header // 2, header, header + 100, (header + len(whole)) // 2, len(whole) - 1]
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    damaged += [
        whole[:-1],
        whole[: header + 5],
        whole[:20],
        b"",
        whole + b"x",
        b"not a file of tensors at all",
        b"\x80",
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ResumeError, match="left as it is: give another path as checkpoint=, or delete it"):
            tune(model, pairs, checkpoint=path, **SETTINGS)
        assert path.read_bytes() == content


def test_a_hostile_checkpoint_is_refused(model, pairs, path):
    stopped_at(model, pairs, path, 4)
    with read_tensors(path) as file:
        tensors, metadata = {key: file.read(key) for key in file}, dict(file.metadata)
    run = metadata["run"]
    progress = tensors["progress"]
    odd = [
        {**tensors, "wkv.now": tensors["wkv.now"] * float("nan")},
        {**tensors, "wkv.now": tensors["wkv.now"].double()},
        {**tensors, "more": torch.zeros(3)},
        {key: tensor for key, tensor in tensors.items() if key != "wkv.best"},
        {**tensors, "wkv.now": torch.zeros(1, 2, 8, 8)},
    ]
    lies = [(0, 1e18), (0, 2.5), (0, -1.0), (1, 99.0), (2, float("nan")), (3, float("inf")), (4, float("nan"))]
    odd += [{**tensors, "progress": torch.where(torch.arange(5) == i, value, progress)} for i, value in lies]
    for found in odd:
        _write(path, found, metadata, run)
        with pytest.raises(ResumeError):
            tune(model, pairs, checkpoint=path, **SETTINGS)
    for text in ("{}", "[]", "", "{" * 5000, run.replace('"place"', '"places"'), run[:-1]):
        _write(path, tensors, metadata, text)
        with pytest.raises(ResumeError):
            tune(model, pairs, checkpoint=path, **SETTINGS)
    write_safetensors(path, tensors)
    with pytest.raises(ResumeError, match="no checkpoint of a tuning run"):
        tune(model, pairs, checkpoint=path, **SETTINGS)


def test_a_place_that_cannot_be_written_is_said_before_the_first_step(model, pairs, tmp_path):
    for place in (tmp_path / "no" / "run", tmp_path):
        with pytest.raises((PathError, SaveError, ResumeError)):
            tune(model, pairs, checkpoint=place, on_step=lambda step: pytest.fail("it began"), **SETTINGS)
    with pytest.raises(ArgError, match="every: needs checkpoint"):
        tune(model, pairs, every=3)
    with pytest.raises(ArgError, match="every"):
        tune(model, pairs, every=0, checkpoint=tmp_path / "run")


def test_a_full_disk_ends_the_run_and_what_was_kept_stays(model, pairs, path, monkeypatch):
    import rwkvlab.model.tuning.saving as saving

    stopped_at(model, pairs, path, 4)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise SaveError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_safetensors", full)
        with pytest.raises(SaveError, match="no space left") as caught:
            tune(model, pairs, checkpoint=path, **SETTINGS)
    assert caught.value.state.card.recipe.startswith("tuned: ") and caught.value.state.wkv.any()
    assert path.read_bytes() == before


def test_after_a_loss_that_is_not_finite_the_last_good_state_is_kept(model, pairs, path):
    start = State(torch.full((2, 2, 8, 8), 1e30), like=model)
    for _ in range(2):
        with pytest.raises(DivergedError, match="step 1 of 12") as caught:
            tune(model, pairs, checkpoint=path, init=start, **(SETTINGS | {"held_out": None, "check": None}))
        assert torch.equal(caught.value.state.wkv, start.wkv)


def test_a_checkpoint_is_kept_by_the_clock_where_no_steps_are_named(model, pairs, path, monkeypatch):
    import rwkvlab.model.tuning.saving as saving

    written = []
    real = saving.write_safetensors
    monkeypatch.setattr(saving, "write_safetensors", lambda *a: written.append(float(a[1]["progress"][0])) or real(*a))
    tune(model, pairs, checkpoint=path, **(SETTINGS | {"every": None}))
    assert written == [0.0, 12.0]
    path.unlink()
    monkeypatch.setattr(saving, "SECONDS", 0.0)
    written.clear()
    tune(model, pairs, checkpoint=path, **(SETTINGS | {"every": None}))
    assert written == list(range(13))
