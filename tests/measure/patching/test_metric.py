import numpy as np
import pytest
import torch

from rwkvlab.bundled import bundled
from rwkvlab.errors import ArgError, NonFiniteError
from rwkvlab.measure.patching import metric as patch_metric
from rwkvlab.measure.patching.patch import patch_map
from rwkvlab.tasks.task import Task

PROMPTS = ["ab", "c d", "efg"]
ONE = Task("one", PROMPTS, ["x", "yz", "q"], template="world")
TWO = Task("two", PROMPTS, ["yy", "x", "abc"], template="world")


def whole_by_score(model, donor, prompts, wanted, other):
    ends = [
        model.score(prompts, wanted, state)["logprob"] - model.score(prompts, other, state)["logprob"]
        for state in (None, donor)
    ]
    return float((ends[1] - ends[0]).mean())


def test_tasks_are_asked_in_their_template_and_answered_after_its_lead(tiny, random_state):
    donor = random_state()
    prompts = [f"User: {text}\n\nAssistant:" for text in PROMPTS]
    want = whole_by_score(tiny, donor, prompts, [" x", " yz", " q"], [" yy", " x", " abc"])
    for metric in ((ONE, TWO), (list(ONE.answers), TWO), ONE):
        got = patch_map(tiny, TWO, None, donor, metric=metric).attrs["whole"]
        assert got == pytest.approx(want, abs=1e-3)
    plain = patch_map(tiny, TWO.formatted(), None, donor, metric=(ONE, TWO)).attrs["whole"]
    assert plain == pytest.approx(want, abs=1e-3)
    one_text = patch_map(tiny, PROMPTS, None, donor, metric=("x", "yy")).attrs["whole"]
    assert one_text == pytest.approx(whole_by_score(tiny, donor, PROMPTS, ["x"] * 3, ["yy"] * 3), abs=1e-3)


def test_prompts_may_be_ids(tiny, random_state):
    rows = [tiny.encode(text) for text in PROMPTS]
    got = patch_map(tiny, rows, None, random_state(), metric=("x", "yy"))
    want = patch_map(tiny, PROMPTS, None, random_state(), metric=("x", "yy"))
    assert got.equals(want)
    single = patch_map(tiny, rows[0], None, random_state(), metric=("x", "yy"))
    assert single.attrs["prompts"] == 1


def test_a_function_gets_the_logits_of_the_next_token(tiny, random_state):
    donor, (x, y) = random_state(), (tiny.encode(letter)[0] for letter in "xy")

    def metric(logits):
        assert logits.shape[1:] == (257,) and logits.dtype is torch.float32
        return logits[:, x] - logits[:, y]

    got = patch_map(tiny, PROMPTS, None, donor, metric=metric)
    want = patch_map(tiny, PROMPTS, None, donor, metric=("x", "y"))
    assert got["effect"].to_numpy() == pytest.approx(want["effect"].to_numpy(), abs=1e-4)
    array = patch_map(tiny, PROMPTS, None, donor, metric=lambda logits: metric(logits).numpy())
    assert array.equals(got)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("x", "metric: need None, a pair"),
        (("x",), "metric: need None, a pair"),
        (3, "metric: need None, a pair"),
        (("x", None), "metric: the other answer: need a list"),
        (("x", ""), "metric: the other answer: need non-empty strings"),
        ((["x"], "y"), "metric: the wanted answer: need one string, or one a prompt: 3; got 1"),
        ((["x", "y", 3], "y"), "metric: the wanted answer: need non-empty strings, got '3'"),
        (("x", "x"), "each of the 3 prompts are the same; give two that differ"),
        (ONE, "metric: one Task needs a Task as prompt"),
        ((ONE, "y"), "metric: the wanted answer: task 'one' asks other prompts"),
        ((Task("s", PROMPTS, kind="style", judge=bool), "y"), "metric: the wanted answer: task 's' has no answers"),
        (lambda logits: logits, r"metric: need one number a row of the logits, \[\d+\]; got"),
        (lambda logits: 1.0, r"metric: need one number a row of the logits, \[\d+\]; got"),
        (lambda logits: "a", "metric: need one number a row of the logits, got"),
        (lambda logits: None, r"metric: need one number a row of the logits"),
    ],
)
def test_a_metric_that_is_none_is_named(tiny, random_state, metric, words):
    with pytest.raises(ArgError, match=words):
        patch_map(tiny, PROMPTS, None, random_state(), metric=metric)


def test_a_metric_that_is_not_finite_is_named_with_its_prompt(tiny, random_state):
    with pytest.raises(NonFiniteError, match=r"prompt\[0\]: the metric is NaN"):
        patch_map(tiny, PROMPTS, None, random_state(), metric=lambda logits: np.full(len(logits), np.nan))


def test_an_answer_that_goes_on_where_the_other_ends_differs_from_it(tiny, random_state, monkeypatch):
    class One:
        def __init__(self, tokens, finish):
            self.tokens, self.finish = tokens, finish

    ends, goes_on = One((5, 6), "end"), One((5, 6, 7), "length")
    state = random_state()
    donor_first = iter([[ends], [goes_on]])
    monkeypatch.setattr(type(tiny), "generate_batch", lambda *args, **kw: next(donor_first))
    asked = patch_metric.ask(tiny, "ab", tiny.zero(), state, None, "here")
    assert (asked.wanted, asked.other) == ([[5, 6, 0]], [[5, 6, 7]])


def test_a_stopped_generation_stops_the_map(tiny, random_state, monkeypatch):
    def interrupted(*args, **kw):
        from types import SimpleNamespace

        return [SimpleNamespace(tokens=(), finish="interrupted")]

    monkeypatch.setattr(type(tiny), "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        patch_map(tiny, "ab", None, random_state())


def test_where_one_answer_begins_the_other_the_whole_way_follows_the_states():
    model, shelf = bundled()
    prompts = ["abcd>", "wxyz>"]
    full, short = ["abcd", "wxyz"], ["abc", "wxy"]
    got = patch_map(model, prompts, None, shelf["copy"], metric=(full, short), per="layer")
    ends = [[[*model.encode(answer), 0] for answer in side] for side in (full, short)]
    want = [
        np.subtract(*(model.score(prompts, side, state)["logprob"] for side in ends)) for state in (None, shelf["copy"])
    ]
    assert got.attrs["whole"] == pytest.approx((want[1] - want[0]).mean(), abs=1e-4)
    assert want[1].min() > 3  # without their ends "abc" is before "abcd" from every state
    task, other = (Task(str(side), prompts, side, template="world") for side in (full, short))
    asked = patch_metric.ask(model, task, model.zero(), shelf["copy"], (task, other), "here")
    assert asked.wanted == [model.encode(f" {answer}\n\n") for answer in full]
    assert asked.other == [model.encode(f" {answer}\n\n") for answer in short]


def test_prompts_that_were_given_are_counted(tiny, random_state):
    with pytest.warns(UserWarning, match="1 of 3 prompts"):
        table = patch_map(tiny, PROMPTS, None, random_state(), metric=(["x", "y", "q"], "y"))
    assert (table.attrs["prompts"], table.attrs["given"]) == (2, 3)
    assert patch_map(tiny, "a", None, random_state(), metric=lambda logits: logits[:, 3]).attrs["given"] == 1
