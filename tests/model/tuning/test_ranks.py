"""Two processes that share a run of tuning come to what one comes to, and end together, whatever ends them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from rwkvlab.states.files import load_state

pytestmark = pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo")
SHARED = (
    "plain",
    "teacher",
    "alone",
    "checkpoint",
    "other",
    "stopped",
    "again",
    "breaks",
    "differ",
    "diverges",
    "interrupt",
)
# of sums added in another order: relative to the norm of the state, after 12 steps of Adam (measured: 4e-7)
CLOSE = 1e-5


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(folder, what one process saw, what each of two saw)."""
    folder = tmp_path_factory.mktemp("ranks")

    def start(rank, world, kinds):
        command = [sys.executable, str(Path(__file__).with_name("two.py")), str(folder), str(rank), str(world), *kinds]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)

    def end(processes):
        for process in processes:
            try:
                said = process.communicate(timeout=200)[1]
            finally:
                process.kill()
            assert process.returncode == 0, said

    def read(world, rank):
        return json.loads((folder / f"out-{world}-{rank}.json").read_text())

    end([start(0, 1, ["plain", "teacher", "alone"])])
    states = {kind: load_state(folder / f"{kind}-0.safetensors") for kind in ("plain", "teacher", "alone")}
    end([start(rank, 2, SHARED) for rank in (0, 1)])
    return folder, (read(1, 0), states), [read(2, rank) for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["plain", "teacher", "alone"])
def test_two_come_to_what_one_comes_to(found, kind):
    folder, (one, states), two = found
    both = [load_state(folder / f"{kind}-{rank}.safetensors") for rank in (0, 1)]
    for name in ("wkv", "att_shift", "ffn_shift"):
        want, got = getattr(states[kind], name), getattr(both[0], name)
        assert torch.equal(got, getattr(both[1], name)), "both processes have the same state, bit by bit"
        assert float((got - want).norm()) <= CLOSE * float(want.norm())
    assert both[0].card.recipe == both[1].card.recipe
    assert len(one[kind]["seen"]) == len(two[0][kind]["seen"]) == 12
    for alone, shared in zip(one[kind]["seen"], two[0][kind]["seen"], strict=True):
        assert shared[0] == alone[0] and (shared[2] is None) == (alone[2] is None)
        numbers = ([value for value in step if value is not None] for step in (shared, alone))
        assert next(numbers) == pytest.approx(next(numbers), rel=1e-5)


def test_only_the_first_reports(found):
    _, _, two = found
    assert all(not two[1][kind]["seen"] for kind in SHARED)


def test_two_that_were_stopped_go_on_to_the_same_bits(found):
    folder, _, two = found
    assert [step[0] for step in two[0]["stopped"]["seen"]] == [1, 2, 3, 4, 5]
    assert [step[0] for step in two[0]["again"]["seen"]] == list(range(6, 13))
    whole = load_state(folder / "checkpoint-0.safetensors")
    for rank in (0, 1):
        again = load_state(folder / f"again-{rank}.safetensors")
        assert torch.equal(again.wkv, whole.wkv) and again.card.recipe == whole.card.recipe


def test_another_run_is_refused_by_both(found):
    _, _, two = found
    assert "lr: '0.05' there, '0.06' here" in two[0]["other"]["error"]
    for rank, kind in enumerate(("ResumeError", "WorkerError")):
        assert two[rank]["other"]["error"].startswith(kind)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("breaks", "OSError: the callback's own", "WorkerError: tune: the first process failed"),
        ("differ", "TuneError: tune: the processes have different", "TuneError: tune: the processes have different"),
        ("diverges", "DivergedError: tune: the loss", "DivergedError: tune: the loss"),
    ],
)
def test_what_ends_one_ends_both(found, kind, first, second):
    _, _, two = found
    assert two[0][kind]["error"].startswith(first)
    assert two[1][kind]["error"].startswith(second)


def test_ctrl_c_in_one_stops_both_after_the_same_step(found):
    folder, _, two = found
    recipes = [two[rank]["interrupt"]["recipe"] for rank in (0, 1)]
    assert recipes[0] == recipes[1]
    steps = int(recipes[0].split()[1])
    assert recipes[0].startswith(f"tuned: {steps} of 12 steps") and 4 <= steps < 12
    states = [load_state(folder / f"interrupt-{rank}.safetensors").wkv for rank in (0, 1)]
    assert torch.equal(*states)
