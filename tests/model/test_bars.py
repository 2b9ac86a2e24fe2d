"""What takes long says how far it is: bars for loading, tuning and comparing, which count what they say they count."""

import threading
from importlib import import_module
from io import StringIO

import pytest
import torch

from rwkvlab.measure.comparing.compare import compare
from rwkvlab.model.tuning import tune
from rwkvlab.model.weights import load_weights

LETTERS = [chr(code) for code in range(32, 127)]
PAIRS = [("a>", "bcd"), ("ba>", "x"), ("yes or no?", "yes"), ("q", "rst")]


@pytest.fixture
def bars(monkeypatch):
    """bars(module) -> the list of bars that it makes from now on; none is drawn."""

    def watch(module):
        made, module = [], import_module(module)
        real = module.tqdm

        class Bar(real):
            def __init__(self, *args, **options):
                super().__init__(*args, **(options | {"file": StringIO()}))
                made.append(self)
                self.ends = []

            def set_postfix(self, *args, **said):
                self.ends.append(said)

        monkeypatch.setattr(module, "tqdm", Bar)
        return made

    return watch


def test_loading_counts_bytes(tiny_file, bars):
    made = bars("rwkvlab.model.weights")
    loaded = load_weights(tiny_file, torch.device("cpu"), "bf16")
    (bar,) = made
    assert bar.n == bar.total == sum(weight.nbytes for weight in loaded.weights.values()) and bar.unit == "B"
    assert bar.delay > 0 and not bar.leave


def test_tuning_counts_steps_unless_it_reports_elsewhere(tiny, bars):
    made = bars("rwkvlab.model.tuning.tune")
    tune(tiny, PAIRS, steps=3, held_out=0.25)
    (bar,) = made
    assert bar.n == bar.total == 3 and [*bar.ends[-1]] == ["loss", "held_out", "refresh"]
    tune(tiny, PAIRS, steps=3, on_step=lambda step: None)
    assert len(made) == 1


def test_a_run_that_goes_on_begins_where_it_was(tiny, bars, tmp_path):
    made, cancel = bars("rwkvlab.model.tuning.tune"), threading.Event()
    options = {"steps": 6, "checkpoint": tmp_path / "run.ckpt"}
    tune(tiny, PAIRS, on_step=lambda step: cancel.set() if step.step == 4 else None, cancel=cancel, **options)
    tune(tiny, PAIRS, **options)
    (bar,) = made
    assert (bar.initial, bar.n) == (4, 6)


def test_comparing_counts_tokens_and_answers_that_end_early_as_whole(tiny, random_state, bars):
    made = bars("rwkvlab.measure.comparing.compare")
    found = compare(tiny, ["hi", "you"], [random_state("a")], max_tokens=9, top_p=1.0, stop=LETTERS)
    (bar,) = made
    assert bar.n == bar.total == 4 * 9 and bar.unit == "token"
    assert found.table["tokens"].min() < 9


def test_nothing_is_drawn_of_what_is_done_at_once(tiny, random_state, capsys):
    compare(tiny, "hi", [random_state("a")], max_tokens=2)
    tune(tiny, PAIRS, steps=1)
    assert capsys.readouterr().err == ""
