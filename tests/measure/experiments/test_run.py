"""Experiments on executors: threads, processes, Dask; the same rows as here, errors of ours, an end in good order."""

import multiprocessing
import os
import shutil
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch

from rwkvlab.errors import ArgError, Cancelled, MismatchError, NonFiniteError, PathError, WorkerError
from rwkvlab.measure.experiments import parts as experiment_parts
from rwkvlab.measure.experiments import run as experiment_run
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.model.engine import Model, load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import load_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task, text_task

TASKS = [
    Task("one", ["ab", "c", "def"], ["x", "yz", "w"]),
    Task("which", ["ab", "c"], ["x", "y"], kind="choice", choices=[("x", "zz"), ("q", "y")]),
    text_task("texts", ["some text", "文"]),
    Task("style", ["hello"], template="world", kind="style", judge=lambda text: "a" in text),  # stays at home
]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def experiment(tiny, random_state, one_thread):
    return Experiment(tiny, {"zero": None, "文": random_state("文", 1)}, TASKS, batch=2, max_tokens=4)


class Now(Executor):
    """Runs at once; its futures are of a kind that `concurrent.futures.wait` does not know, as some clusters' are."""

    class Done:
        def __init__(self, call):
            self.call = call

        def result(self):
            return self.call()

        def cancel(self):
            return False

    def submit(self, fn, /, *args):
        return self.Done(lambda: fn(*args))


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(3), Now])
def test_threads_and_odd_futures_give_the_rows_of_a_serial_run(experiment, make):
    with make() as pool:
        assert experiment.run(pool).equals(experiment.run())


def test_spawned_processes_give_the_rows_of_a_serial_run(experiment, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert experiment.run(pool).equals(experiment.run())


def test_forked_processes_open_two_models_once_each(experiment, tmp_path, one_thread):
    dims = Dims("x060", L=1, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    torch.save(random_weights(dims, {"maa": 4, "decay": 4}), tmp_path / "six.pth")
    six = Experiment(load_model(tmp_path / "six.pth"), [None], TASKS, batch=1, max_tokens=3)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert experiment.run(pool).equals(experiment.run())
        assert six.run(pool).equals(six.run())
        (tmp_path / "six.pth").unlink()  # open already
        assert six.run(pool).equals(six.run())


def test_dask_gives_the_rows_of_a_serial_run(experiment, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        with pytest.raises(ArgError, match=r"client\.get_executor"):
            experiment.run(client)
        assert experiment.run(client.get_executor()).equals(experiment.run())


@pytest.fixture(scope="module")
def forks():
    """Two forked workers for the tests of what goes wrong."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        yield pool


def test_two_processes_give_the_rows_of_a_serial_run(forks, experiment):
    assert experiment.run(forks).equals(experiment.run())


def test_what_goes_wrong_in_a_worker_arrives_as_it_would_here(forks, tiny, random_state, one_thread):
    broken = State(random_state().wkv * float("nan")).named("nan")
    for executor in (None, forks):
        with pytest.raises(NonFiniteError, match=r"NaN"):
            Experiment(tiny, [broken], TASKS[1]).run(executor)


def test_a_model_whose_file_is_gone_or_another_one_is_told(forks, tiny_file, tmp_path, one_thread):
    path = tmp_path / "gone.pth"
    shutil.copy(tiny_file, path)
    lone = Experiment(load_model(path), [None], TASKS[1])
    path.unlink()
    with pytest.raises(PathError, match=r"sent to other processes as its path.*gone.pth"):
        lone.run(forks)
    weights = torch.load(tiny_file)
    torch.save({key: -tensor for key, tensor in weights.items()}, path)
    with pytest.raises(MismatchError, match=r"holds another model"):
        lone.run(forks)
    shutil.copy(tiny_file, path)  # what failed is tried again
    assert lone.run(forks).equals(lone.run())


def test_a_model_made_by_hand_runs_in_threads_and_is_refused_by_processes(forks, tiny_file, one_thread):
    model = Model(load_weights(tiny_file, torch.device("cpu")), "mine", "bytes")
    lone = Experiment(model, [None], TASKS[1])
    with ThreadPoolExecutor(1) as threads:
        assert lone.run(threads).equals(lone.run())
    with pytest.raises(ArgError, match=r"'mine': cannot be sent to another process.*load_model"):
        lone.run(forks)


def test_a_worker_that_dies_is_an_error_of_ours(tiny, monkeypatch, one_thread):
    monkeypatch.setattr(experiment_run, "answer", lambda *_: os._exit(9))  # forked with this in place
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with pool, pytest.raises(WorkerError, match=r"a worker ended.*BrokenProcessPool"):
        Experiment(tiny, [None], TASKS[1]).run(pool)


def test_an_error_that_is_not_ours_is_wrapped_and_shown_on_one_line(tiny, monkeypatch):
    def fail(*_):
        raise MemoryError("\x1b[2J no\nroom")

    monkeypatch.setattr(experiment_run, "answer", fail)
    with ThreadPoolExecutor(1) as pool, pytest.raises(WorkerError) as caught:
        Experiment(tiny, [None], TASKS[1]).run(pool)
    assert "MemoryError" in str(caught.value) and str(caught.value).isprintable()


def test_ctrl_c_cancels_what_has_not_begun(experiment, monkeypatch):
    begun, go = [], threading.Event()

    def slow(model, part):
        begun.append(part)
        go.wait(20)
        return experiment_parts.answer(model, part)

    def interrupted(*_, **__):
        go.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment_run, "answer", slow)
    monkeypatch.setattr(experiment_run, "wait", interrupted)
    with ThreadPoolExecutor(1) as pool, pytest.raises(Cancelled, match=r"nothing is kept, run it again"):
        experiment.run(pool)
    assert len(begun) <= 2


def test_an_executor_that_was_shut_down_or_is_none_is_told(experiment):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(WorkerError, match=r"cannot schedule"):
        experiment.run(pool)
    with pytest.raises(ArgError, match=r"executor: need a concurrent.futures.Executor or None, got 'int'"):
        experiment.run(4)


def test_only_so_many_parts_are_handed_over_at_once(experiment, monkeypatch):
    class Counting(Executor):
        open = most = 0

        def submit(self, fn, /, *args):
            self.open += 1
            self.most = max(self.most, self.open)
            future = Future()
            threading.Timer(
                0.001, lambda: (self.__setattr__("open", self.open - 1), future.set_result(fn(*args)))
            ).start()
            return future

    pool = Counting()
    monkeypatch.setattr(experiment_run, "_at_once", lambda parts: 2)
    assert experiment.run(pool).equals(experiment.run())
    assert pool.most <= 2


def test_large_states_lower_how_many_parts_are_handed_over(experiment, monkeypatch):
    parts = dict(enumerate(experiment_parts.cut(experiment.model, experiment.states, TASKS[:1], [4], 2)))
    assert experiment_run._at_once(parts) == experiment_run.WAITING
    size = 4 * 2 * 2 * 16 * 16
    monkeypatch.setattr(experiment_run, "BYTES", 20 * size)
    assert experiment_run._at_once(parts) == 20
    monkeypatch.setattr(experiment_run, "BYTES", size)
    assert experiment_run._at_once(parts) == 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_process_opens_the_model_on_the_gpu_that_it_was_on_here(tiny_file, random_state, tmp_path):
    model = load_model(tiny_file, tokenizer="bytes", device="cuda")
    there = Experiment(model, {"zero": None, "a": random_state("a").to("cuda")}, TASKS, batch=2, max_tokens=4)
    here = there.run(resume=tmp_path / "a.jsonl")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert there.run(pool).equals(here)
