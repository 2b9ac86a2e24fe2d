"""Tuning on a random model: what is minimised, what is left alone, how it stops, and what it refuses."""

import os
import signal
import threading

import pytest
import torch

from rwkvlab.errors import ArgError, Cancelled, DivergedError, MismatchError, TuneError
from rwkvlab.model.tuning import pace, tune
from rwkvlab.model.tuning.loss import Objective
from rwkvlab.model.tuning.run import Run
from rwkvlab.states.state import State

EXAMPLES = [("a>", "bcd"), ("ba>", "x"), ("yes or no?", "yes"), ("q", "rst")]


@pytest.fixture
def start(model):
    generator = torch.Generator().manual_seed(1)
    dims = model.dims
    return State(
        torch.randn(2, 2, 8, 8, generator=generator),
        like=model,
        att_shift=torch.randn(dims.L, dims.C, generator=generator),
        ffn_shift=torch.randn(dims.L, dims.C, generator=generator),
    ).named("start")


def loss_of(model, state, examples=EXAMPLES):
    """Mean negative log-probability of the tokens of all answers and of the end of text behind them."""
    logprobs = []
    for prompt, answer in examples:
        ids, wanted = model.encode(prompt), [*model.encode(answer), 0]
        logits = model.forward([*ids, *wanted], state).logits[0].double().log_softmax(-1)
        logprobs += [float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(wanted)]
    return -sum(logprobs) / len(logprobs)


@pytest.mark.parametrize("arch", ["x070", "x060", "x052"])
def test_the_loss_is_that_of_the_answers_alone_and_it_falls(make, arch):
    model, seen = make(arch), []
    state = tune(model, EXAMPLES, steps=30, lr=0.1, on_step=seen.append)
    assert [step.step for step in seen] == list(range(1, 31))
    assert seen[0].loss == pytest.approx(loss_of(model, None), rel=1e-5)
    assert loss_of(model, state) < 0.95 * seen[0].loss
    assert seen[-1].norm == pytest.approx(float(state.wkv.norm()), rel=1e-5)
    assert seen[0].lr == 0.1 > seen[-1].lr > 0


def test_the_card_says_how_the_state_was_made(model, start):
    card = tune(model, EXAMPLES, steps=2, lr=0.01, batch=3, seed=5, template="raw", init=start).card
    assert (card.arch, card.base, card.template) == ("x070", model.card.fingerprint, "raw")
    assert card.recipe == "tuned: 2 steps, lr 0.01, batch 3, 4 examples, seed 5, from start"


def test_model_and_init_stay_as_they_were(model, start):
    def tensors():
        weights = [x for layer in model._weights.layers for x in layer if isinstance(x, torch.Tensor)]
        return [model._weights.emb, model._weights.head, *weights, start.wkv, start.att_shift, start.ffn_shift]

    before = [tensor.clone() for tensor in tensors()]
    assert not torch.equal(tune(model, EXAMPLES, steps=2, init=start, shifts=True).wkv, start.wkv)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(), strict=True))
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in tensors())


def test_shifts_are_trained_only_where_wanted(model, start):
    kept = tune(model, EXAMPLES, steps=2, init=start)
    assert torch.equal(kept.att_shift, start.att_shift)
    assert torch.equal(kept.ffn_shift, start.ffn_shift)
    moved = tune(model, EXAMPLES, steps=2, init=start, shifts=True)
    assert not torch.equal(moved.att_shift, start.att_shift)
    assert not torch.equal(moved.ffn_shift, start.ffn_shift)


def test_the_seed_decides_the_state_bit_by_bit(model):
    one, same, other = (tune(model, EXAMPLES, steps=6, batch=2, seed=seed).wkv for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_state_goes_on_from_init(model, start):
    losses = []
    tune(model, EXAMPLES, steps=1, init=start, on_step=losses.append)
    assert losses[0].loss == pytest.approx(loss_of(model, start), rel=1e-5)


def test_cancel_returns_the_state_so_far(model):
    cancel, seen = threading.Event(), []

    def third(step):
        seen.append(step)
        if step.step == 3:
            cancel.set()

    state = tune(model, EXAMPLES, steps=50, on_step=third, cancel=cancel)
    assert len(seen) == 3
    assert state.card.recipe.startswith("tuned: 3 of 50 steps")
    assert float(state.wkv.norm()) == pytest.approx(seen[-1].norm, rel=1e-5)
    assert not tune(model, EXAMPLES, steps=5, cancel=cancel).wkv.any()


def test_ctrl_c_returns_the_state_so_far_and_python_keeps_its_handler(model):
    def interrupt(step):
        if step.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.warns(UserWarning, match="interrupted after step 2 of 50; the state so far is returned"):
        state = tune(model, EXAMPLES, steps=50, on_step=interrupt)
    assert state.card.recipe.startswith("tuned: 2 of 50 steps")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_divergence_is_an_error_that_says_where(model):
    broken = State(torch.full((2, 2, 8, 8), 1e30), like=model)
    with pytest.raises(DivergedError, match=r"step 1 of 9, lr 0\.04; start again with a smaller lr") as caught:
        tune(model, EXAMPLES, steps=9, init=broken)
    assert torch.equal(caught.value.state.wkv, broken.wkv)


def test_the_best_state_by_held_out_examples_is_returned(model):
    seen, apart = [], [("zz", "never seen"), ("y", "w")]
    state = tune(model, EXAMPLES, steps=40, lr=0.5, held_out=apart, check=4, on_step=seen.append)
    measured = [step.held_out for step in seen if step.held_out is not None]
    assert len(measured) == 10
    assert seen[-1].best == min([*measured, loss_of(model, None, apart)])
    assert loss_of(model, state, apart) == pytest.approx(seen[-1].best, rel=1e-5)
    assert loss_of(model, state, apart) < measured[-1]
    assert "2 held out: loss" in state.card.recipe
    assert all(step.tokens_per_second > 0 <= step.seconds_left for step in seen)


def test_patience_ends_a_run_that_finds_nothing_better(model):
    seen, apart = [], [("zz", "never seen"), ("y", "w")]
    state = tune(model, EXAMPLES, steps=400, lr=0.5, held_out=apart, check=2, patience=3, on_step=seen.append)
    assert len(seen) < 100
    late = [step.held_out for step in seen if step.held_out is not None][-3:]
    assert all(loss > seen[-1].best for loss in late)
    assert loss_of(model, state, apart) == pytest.approx(seen[-1].best, rel=1e-5)


def test_ctrl_c_returns_the_best_state(model):
    def interrupt(step):
        if step.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    apart = [("zz", "never seen"), ("y", "w")]
    with pytest.warns(UserWarning, match="interrupted after step 30 of 40"):
        state = tune(model, EXAMPLES, steps=40, lr=0.5, held_out=apart, check=1, on_step=interrupt)
    again = tune(model, EXAMPLES, steps=40, lr=0.5, held_out=apart, check=1)
    assert state.card.recipe.startswith("tuned: 30 of 40 steps")
    assert loss_of(model, state, apart) >= loss_of(model, again, apart) * (1 - 1e-6)
    assert loss_of(model, state, apart) < loss_of(model, None, apart)


def test_a_share_of_the_examples_is_held_out_by_the_seed(model):
    pairs = [(f"{i}>", str(i)) for i in range(20)]
    one, same, other = (tune(model, pairs, steps=2, held_out=0.25, seed=seed) for seed in (1, 1, 2))
    assert "15 examples" in one.card.recipe
    assert "5 held out" in one.card.recipe
    assert torch.equal(one.wkv, same.wkv)
    assert not torch.equal(one.wkv, other.wkv)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "examples: empty"),
        ([5], r"examples\[0\]: need a \(prompt, answer\) pair"),
        ([("a", "b"), ("a", "b", "c")], r"examples\[1\]: need a \(prompt, answer\) pair"),
        ([("a", "b"), ("", "b")], r"examples\[1\]: prompt and answer need at least one token"),
        ([("a", "b"), ("a", "\ud800")], r"examples\[1\]: .*surrogate"),
        ([("a", 3)], r"examples\[0\]: "),
    ],
)
def test_examples_that_cannot_be_used_are_named(model, examples, message):
    with pytest.raises(TuneError, match=message):
        tune(model, examples)


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"batch": 0},
        {"batch": 5},
        {"seed": -1},
        {"held_out": 0.0},
        {"held_out": 1.0},
        {"held_out": 0.9},
        {"held_out": True},
        {"held_out": 0.5, "check": 0},
        {"held_out": 0.5, "patience": 0},
        {"patience": 3},
        {"check": 3},
    ],
)
def test_settings_out_of_range_are_named(model, setting):
    with pytest.raises(ArgError, match=list(setting)[-1]):
        tune(model, EXAMPLES, **setting)


def test_an_init_of_another_model_is_refused(make, model):
    with pytest.raises(MismatchError):
        tune(model, EXAMPLES, init=make(seed=1).zero())


@pytest.mark.parametrize("examples", [None, 5, "ab"])
def test_examples_must_be_a_list(model, examples):
    with pytest.raises(TuneError, match="examples: need a list"):
        tune(model, examples)


def test_only_the_logits_of_counted_tokens_are_formed(model, start):
    tokens = torch.tensor([[5, 6, 7, 8, 9], [1, 2, 3, 4, 0]])
    at = torch.tensor([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    with torch.no_grad():
        some = model.head(model.hidden(tokens, model.begin([start, None]), at))
        every = model.run(tokens, model.begin([start, None]), "all")
    assert some.shape == (3, 257)
    torch.testing.assert_close(some, every[at])


@pytest.mark.parametrize(("stop", "at"), [(3, "not measured yet"), (7, "after 5 steps")])
def test_stopped_before_the_first_measurement_the_last_state_is_returned(model, stop, at):
    seen, cancel, apart = [], threading.Event(), [("zz", "y")]

    def note(step):
        seen.append(step)
        if step.step == stop:
            cancel.set()

    state = tune(model, EXAMPLES, steps=40, held_out=apart, check=5, on_step=note, cancel=cancel)
    assert state.card.recipe.endswith(at) and state.card.recipe.startswith(f"tuned: {stop} of 40 steps")
    assert float(state.wkv.norm()) == pytest.approx(seen[min(stop, 5) - 1].norm, rel=1e-5)


def test_the_error_that_ends_a_run_has_the_best_state(model):
    def breaks(step):
        if step.step == 7:
            raise OSError("the callback's own")

    with pytest.raises(OSError, match="the callback's own") as caught:
        tune(model, EXAMPLES, steps=40, template="raw", held_out=[("zz", "y")], check=5, on_step=breaks)
    state = caught.value.state
    assert torch.equal(state.wkv, tune(model, EXAMPLES, steps=40, held_out=[("zz", "y")], check=5, cancel=at(5)).wkv)
    assert state.card.template == "raw" and state.card.recipe.endswith("after 5 steps")


class at:
    """An event that is set at a step; it is asked before each step, and once before the first measurement."""

    def __init__(self, step):
        self.left = step + 2

    def is_set(self):
        self.left -= 1
        return self.left < 0


def test_a_held_out_loss_that_is_not_finite_ends_the_run(model, monkeypatch):
    real = Objective.total

    def broken(self, params, rows):
        loss = real(self, params, rows)
        return loss if torch.is_grad_enabled() or not params[0].any() else loss * float("inf")

    monkeypatch.setattr(Objective, "total", broken)
    with pytest.raises(DivergedError, match=r"the held-out loss is not finite \(inf\) after 5 steps") as caught:
        tune(model, EXAMPLES, steps=40, held_out=[("zz", "y")], check=5)
    assert not caught.value.state.wkv.any() and "5 of 40 steps" in caught.value.state.card.recipe


def test_the_time_left_counts_steps_and_measurements_apart(model, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    real_step, real_total = Run._backward, Objective.total

    def slow_step(self, *args):
        now[0] += 100.0 if not self.done else 2.0  # the first compiles
        return real_step(self, *args)

    def slow_total(self, *args):
        now[0] += 0.0 if torch.is_grad_enabled() else 30.0
        return real_total(self, *args)

    monkeypatch.setattr(Run, "_backward", slow_step)
    monkeypatch.setattr(Objective, "total", slow_total)
    seen = []
    tune(model, EXAMPLES, steps=25, batch=4, held_out=[("zz", "y")], check=10, on_step=seen.append)
    tokens = sum(len(model.encode(prompt + answer)) for prompt, answer in EXAMPLES)
    left = {step.step: step.seconds_left for step in seen}
    assert [left[1], left[2], left[9], left[10]] == [2490.0, 136.0, 122.0, 90.0]
    assert [left[20], left[24], left[25]] == [40.0, 32.0, 0.0]
    assert seen[0].tokens_per_second == tokens / 100
    assert all(step.tokens_per_second == tokens / 2 for step in seen[1:])


def test_what_is_no_model_and_no_event_is_named(model):
    with pytest.raises(ArgError, match=r"model: need a model, got .str."):
        tune("rwkv7", EXAMPLES)
    with pytest.raises(ArgError, match=r"cancel: need a threading.Event, got .bool."):
        tune(model, EXAMPLES, cancel=True)
    with torch.inference_mode(), pytest.raises(ArgError, match="inference_mode"):
        tune(model, EXAMPLES)


def test_a_teacher_that_writes_is_stopped(model):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="nothing was trained"):
        tune(model, [{"prompt": "ab"}], teacher="be brief", cancel=cancel)


def test_a_question_with_its_answer_is_a_conversation(model):
    talk = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
    states = [tune(model, given, steps=2, template="g1") for given in (talk, [{"question": "q", "answer": "a"}])]
    assert torch.equal(*(state.wkv for state in states))
