"""A run in a thread: the same state as tune's, stopped at once, and nothing left behind."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref

import pytest
import torch

from rwkvlab.errors import ArgError, Cancelled, DivergedError, TuneError, UnfinishedError
from rwkvlab.model.tuning import start_tuning, tune
from rwkvlab.states.state import State

PAIRS = [("a>", "bcd"), ("ba>", "x"), ("yes or no?", "yes"), ("q", "rst")]
ENDLESS = {"steps": 10**6, "lr": 0.001}


def wait_for(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_the_state_is_that_of_tune_bit_by_bit(model):
    seen = []
    job = start_tuning(model, PAIRS, steps=20, lr=0.1, held_out=[("zz", "y")], on_step=seen.append)
    state, want = job.wait(), tune(model, PAIRS, steps=20, lr=0.1, held_out=[("zz", "y")])
    assert torch.equal(state.wkv, want.wkv) and state.card == want.card
    assert job.done and job.error is None
    assert job.steps == seen and [step.step for step in seen] == list(range(1, 21))
    assert "done: step 20 of 20: loss " in repr(job) and "held out" in repr(job)


def test_stop_takes_effect_at_once_and_keeps_the_state(model):
    job = start_tuning(model, PAIRS, **ENDLESS)
    wait_for(lambda: len(job.steps) >= 3)
    assert not job.done and repr(job).startswith("<TuningJob running: step ")
    begin = time.monotonic()
    job.stop()
    assert repr(job).startswith("<TuningJob stop")
    state = job.wait(10)
    assert time.monotonic() - begin < 0.3
    count = len(job.steps)
    assert state.card.recipe.startswith(f"tuned: {count} of 1000000 steps")
    assert float(state.wkv.norm()) == pytest.approx(job.steps[-1].norm, rel=1e-5)
    assert repr(job).startswith("<TuningJob stopped: step ")
    job.stop()
    assert torch.equal(job.wait().wkv, state.wkv)


def test_a_long_measurement_is_stopped_too(model):
    apart = [(f"{i}>", "x" * 40) for i in range(4000)]
    job = start_tuning(model, PAIRS, held_out=apart, batch=1, **ENDLESS)
    time.sleep(0.2)
    begin = time.monotonic()
    job.stop()
    assert not job.wait(10).wkv.any()
    assert time.monotonic() - begin < 0.3


def test_waiting_ends_where_it_was_told_to(model):
    job = start_tuning(model, PAIRS, **ENDLESS)
    with pytest.raises(UnfinishedError, match=r"goes on after 0\.1 s"):
        job.wait(0.1)
    with pytest.raises(TimeoutError):
        job.wait(0)
    with pytest.raises(ArgError, match="timeout"):
        job.wait(-1)
    assert not job.done
    job.stop()
    job.wait()


def test_ctrl_c_while_waiting_stops_the_run_and_returns_its_state(model):
    job = start_tuning(model, PAIRS, **ENDLESS)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert job.wait(20).card.recipe.startswith(f"tuned: {len(job.steps)} of 1000000 steps")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_cannot_begin_is_refused_before_the_thread(model):
    before = threading.active_count()
    with pytest.raises(ArgError, match="lr"):
        start_tuning(model, PAIRS, lr=-1)
    with pytest.raises(TuneError, match="examples"):
        start_tuning(model, [])
    with pytest.raises(TypeError, match="rate"):
        start_tuning(model, PAIRS, rate=3)
    assert threading.active_count() == before


def test_what_ends_it_is_its_error_and_waiting_raises_it(model):
    job = start_tuning(model, PAIRS, init=State(torch.full((2, 2, 8, 8), 1e30), like=model))
    with pytest.raises(DivergedError) as caught:
        job.wait()
    assert job.error is caught.value and job.done
    assert "failed: tune: the loss" in repr(job)

    def breaks(step):
        raise OSError("the callback's own")

    job = start_tuning(model, PAIRS, on_step=breaks)
    depths = []
    for _ in range(3):
        with pytest.raises(OSError, match="the callback's own") as caught:
            job.wait()
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(depths)) == 1, "waiting again adds nothing to the error"
    assert job.best.card.recipe.startswith("tuned: 1 of")


def test_an_event_from_outside_stops_it_too(model):
    cancel = threading.Event()
    job = start_tuning(model, PAIRS, cancel=cancel, **ENDLESS)
    cancel.set()
    assert job.wait(10).card.recipe.startswith("tuned: ")


def test_nothing_is_left_behind(model):
    before = set(threading.enumerate())
    examples = [list(pair) for pair in PAIRS]
    job = start_tuning(model, examples, steps=3)
    thread = weakref.ref(job._thread)
    state = job.wait()
    assert set(threading.enumerate()) == before
    del job
    gc.collect()
    assert thread() is None and state.wkv.any()


def test_a_program_that_ends_first_ends_in_good_order(tmp_path):
    code = f"""
import time, rwkvlab as lab
model, _ = lab.bundled("micro")
job = lab.start_tuning(model, [("abc>", "cba"), ("xy>", "yx")], steps=10**6, checkpoint={str(tmp_path / "c")!r})
while len(job.steps) < 3:
    time.sleep(0.01)
"""
    begin = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert time.monotonic() - begin < 60
    assert (tmp_path / "c").exists()


@pytest.mark.parametrize("held_out", [None, [("zz", "y")]])
def test_the_best_state_so_far_is_there_at_any_time(model, held_out):
    seen = []
    ready = threading.Event()

    def look(step):
        ready.wait(10)
        seen.append(job.best)

    job = start_tuning(model, PAIRS, steps=6, lr=0.5, held_out=held_out, check=held_out and 1, on_step=look)
    ready.set()
    state = job.wait()
    alone = []
    tune(model, PAIRS, steps=6, lr=0.5, held_out=held_out, check=held_out and 1, on_step=alone.append)
    assert torch.equal(job.best.wkv, state.wkv) and job.best.card == state.card
    for step, best in zip(alone, seen, strict=True):
        if held_out is None:
            assert float(best.wkv.norm()) == pytest.approx(step.norm, rel=1e-5), "not that of a later step"
        assert best.card.recipe.startswith("tuned: 6 steps" if step.step == 6 else f"tuned: {step.step} of 6 steps")
    if held_out:
        assert f"{alone[2].best:.4g}" in seen[2].card.recipe


def test_the_best_state_is_whole_while_another_thread_tunes(model):
    job = start_tuning(model, PAIRS, **ENDLESS)
    wait_for(lambda: job.best is not None and len(job.steps) >= 2)
    found = [job.best for _ in range(50)]
    job.stop()
    job.wait()
    norms = [0.0, *(step.norm for step in job.steps)]
    for state in found:
        done = int(state.card.recipe.split()[1])
        assert float(state.wkv.norm()) == pytest.approx(norms[done], rel=1e-5)


def test_a_few_held_out_questions_can_be_asked_meanwhile(model):
    job = start_tuning(model, PAIRS, steps=1, held_out=[("zz", "y"), "abcdef"])
    job.wait()
    assert job.questions == [(model.encode("zz"), model.encode("y")), (model.encode("abc"), model.encode("def"))]
    job = start_tuning(model, PAIRS[:3] * 5, steps=1)
    job.wait()
    asked = [(model.encode(asked), model.encode(told)) for asked, told in PAIRS[:3]]
    assert job.questions == [*asked, asked[0]], "of those trained on, where none are held out"


def test_a_teacher_that_writes_answers_is_stopped_from_outside(model):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="nothing was trained"):
        start_tuning(model, [{"prompt": "ab"}], teacher="be brief", cancel=cancel)
