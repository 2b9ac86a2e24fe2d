"""Several states tuned side by side: each as if it had been tuned alone."""

import threading

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, DivergedError, TuneError
from rwkvlab.model.tuning import many
from rwkvlab.model.tuning.many import tune_many

RUNS = {
    "short": [("ab>", "c"), ("b>", "dd"), ("cc>", "e")],
    "long": ["a text of some length", "another one", ("x", "a long answer, " * 3)],
    "one": [("q", "a")],
}


@pytest.mark.parametrize("piece", [2**16, 40])
def test_each_state_is_the_one_that_tune_gives_alone(tiny, monkeypatch, piece):
    monkeypatch.setattr(many, "PIECE", piece)
    seeds = {"short": 0, "long": 5, "one": 7}
    found = tune_many(tiny, RUNS, steps=12, lr=0.05, seeds=seeds, template="raw")
    assert list(found) == list(RUNS)
    for name, examples in RUNS.items():
        want = lab.tune(tiny, examples, steps=12, lr=0.05, seed=seeds[name], template="raw")
        assert want.wkv.norm() > 0.1
        assert (found[name].wkv - want.wkv).norm() < 1e-3 * want.wkv.norm()
        assert found[name].card.template == "raw" and found[name].card.base == tiny.card.fingerprint
        assert found[name].card.recipe == want.card.recipe


def test_losses_are_told_by_name_and_fall(tiny):
    told = []
    tune_many(tiny, RUNS, steps=30, lr=0.05, batch=1, on_step=lambda step, losses: told.append((step, losses)))
    assert [step for step, _ in told] == list(range(1, 31))
    assert all(list(losses) == list(RUNS) for _, losses in told)
    assert told[-1][1]["one"] < 0.7 * told[0][1]["one"]


def test_it_stops_when_it_is_told_to(tiny):
    cancel = threading.Event()
    found = tune_many(tiny, RUNS, steps=500, on_step=lambda *_: cancel.set(), cancel=cancel)
    assert "1 of 500 steps" in found["one"].card.recipe and found["one"].wkv.norm() > 0


def test_a_run_that_diverges_is_named_and_nothing_is_lost(tiny, monkeypatch):
    plain = torch.nn.functional.cross_entropy

    def poisoned(logits, targets, reduction):
        return plain(logits, targets, reduction=reduction) * torch.where(targets == ord("d") + 1, torch.inf, 1.0)

    monkeypatch.setattr(many.F, "cross_entropy", poisoned)
    with pytest.raises(DivergedError, match=r"step 1 of 9: short;") as caught:
        tune_many(tiny, RUNS, steps=9)
    assert list(caught.value.states) == list(RUNS)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"runs": {}}, ArgError, "runs"),
        ({"runs": [("a", "b")]}, ArgError, "runs"),
        ({"runs": {"x": []}}, TuneError, "empty"),
        ({"seeds": {"short": 1}}, ArgError, "none for 'long'"),
        ({"seeds": -1}, ArgError, "seed"),
        ({"batch": 2}, ArgError, "batch"),
        ({"steps": 0}, ArgError, "steps"),
        ({"lr": float("nan")}, ArgError, "lr"),
    ],
)
def test_what_cannot_be_used_is_refused(tiny, change, error, words):
    with pytest.raises(error, match=words):
        tune_many(tiny, **({"runs": RUNS} | change))
