"""Experiments: batches against one answer at a time, every kind of task, and what is refused."""

import math
import warnings

import pandas as pd
import pytest

from rwkvlab.bundled.shelf import bundled
from rwkvlab.errors import ArgError, Cancelled, MismatchError, NonFiniteError
from rwkvlab.measure.experiments import parts as experiment_parts
from rwkvlab.measure.experiments.controls import controlled
from rwkvlab.measure.experiments.experiment import SPARE, Experiment
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task, text_task
from rwkvlab.tasks.templates import Template

TASKS = [
    Task("one", ["ab", "c", "def"], ["x", "yz", "w"]),
    Task("two", ["ab", "def"], ["q", "w"]),
    Task("chat", ["hello"], ["there"], template="world"),
]
TODAY = ["task", "state", "example", "prompt", "answer", "said", "right", "logprob"]


@pytest.fixture
def states(random_state):
    return {"zero": None, "a": random_state("a"), "文": random_state("文", 1)}


def test_a_batch_of_everything_is_one_by_one_generation_and_scoring(tiny, states):
    rows = Experiment(tiny, states, TASKS, max_tokens=5).run()
    assert list(rows.columns) == [*TODAY, "kind", "tokens", "bytes", "bits_per_byte", "choice"]
    assert len(rows) == 3 * 6 and rows["right"].dtype == bool and rows["choice"].isna().all()
    for row in rows.itertuples():
        options = {"temperature": 0.0, "presence": 0.0, "frequency": 0.0, "max_tokens": 5}
        template = "world" if row.task == "chat" else "raw"
        alone = tiny.chat(row.prompt, states[row.state], template=template, **options)
        assert row.said == alone.text
        prompt = "User: hello\n\nAssistant:" if row.task == "chat" else row.prompt
        answer = " there" if row.task == "chat" else row.answer
        one = tiny.score(prompt, answer, states[row.state])["logprob"][0]
        assert row.logprob == pytest.approx(one, abs=1e-3)
        assert row.tokens == row.bytes == len(answer)  # this model reads bytes
        assert row.bits_per_byte == pytest.approx(-row.logprob / math.log(2) / len(answer))


def test_an_answer_is_right_when_it_is_the_whole_answer(tiny, states):
    said = tiny.generate("ab", states["a"], temperature=0, max_tokens=3).text
    tasks = [Task("right", ["ab"], [said]), Task("part", ["ab"], [said[:2]])]
    tasks.append(Task("begins", ["ab"], [said[:2]], kind="last word"))
    rows = Experiment(tiny, states, tasks, max_tokens=3).run()
    found = rows[rows.state == "a"].set_index("task")["right"].to_dict()
    assert found == {"right": True, "part": False, "begins": not said[2].isalnum()}


def test_the_lead_of_a_template_takes_nothing_from_the_answer(tiny):
    lead = "so I say, after some thought: "
    form = Template("mine", "{question}?", lead=lead, stop=("\n",), separator="\n")
    tasks = [Task("t", ["a"], ["four"], template=form), Task("raw", ["a"], ["longer"])]
    parts = Experiment(tiny, None, tasks)._lengths()
    assert parts == [len(lead) + len("four") + SPARE] * 2


def test_batches_of_any_size_give_the_same(tiny, states):
    whole = Experiment(tiny, states, TASKS).run()
    small = Experiment(tiny, states, TASKS, batch=2).run()
    numbers = ["logprob", "bits_per_byte"]
    assert small.drop(columns=numbers).equals(whole.drop(columns=numbers))
    assert small["logprob"].to_numpy() == pytest.approx(whole["logprob"].to_numpy(), abs=1e-3)


def test_a_question_that_two_tasks_ask_is_answered_once(tiny, states, monkeypatch):
    asked = []
    real = experiment_parts.chat_batch

    def counted(model, questions, *args, **options):
        asked.extend(questions)
        return real(model, questions, *args, **options)

    monkeypatch.setattr(experiment_parts, "chat_batch", counted)
    Experiment(tiny, states, TASKS[:2]).run()
    assert sorted(asked) == sorted(["ab", "c", "def"] * 3)


@pytest.mark.parametrize("normalise", ["none", "token", "byte"])
def test_a_choice_is_the_most_probable_one_by_its_measure(tiny, states, normalise, monkeypatch):
    def unwanted(*_, **__):
        raise AssertionError("nothing is to be written")

    monkeypatch.setattr(experiment_parts, "chat_batch", unwanted)
    choices = [("a", "bcdef", "é"), ("xyz", "q", "xyzq")]
    task = Task("which", ["one?", "two?"], ["é", "q"], kind="choice", choices=choices, normalise=normalise)
    rows = Experiment(tiny, states, task).run()
    for row in rows.itertuples():
        listed = [tiny.encode(choice) for choice in choices[row.example]]
        if row.example:  # "xyz" begins "xyzq"
            listed = [[*ids, 0] for ids in listed]
        scored = tiny.score(row.prompt, listed, states[row.state])
        sizes = 1 if normalise == "none" else [len(choice.encode()) for choice in choices[row.example]]
        sizes = [len(ids) for ids in listed] if normalise == "token" else sizes
        best = (scored["logprob"] / sizes).idxmax()
        assert (row.choice, row.said) == (best, choices[row.example][best])
        assert row.right == (row.said == row.answer)
        assert row.logprob == pytest.approx(scored["logprob"][choices[row.example].index(row.answer)], abs=1e-3)
    assert rows["right"].dtype == bool


def test_a_choice_that_another_begins_with_can_be_the_most_probable():
    model, shelf = bundled()
    prompts, answers, choices = ["abcd>", "wxyz>"], ["abcd", "wxyz"], [("abc", "abcd"), ("wxy", "wxyz")]
    choice = Task("choice", prompts, answers, kind="choice", choices=choices)
    alone = Task("alone", prompts, answers)  # the same answers, scored without an end
    rows = Experiment(model, {"copy": shelf["copy"]}, [choice, alone]).run()
    assert rows["right"].all() and rows["said"].tolist() == answers * 2
    assert rows["tokens"].tolist() == [5, 5, 4, 4] and rows["bytes"].eq(4).all()
    ended = model.score(prompts, [[*model.encode(answer), 0] for answer in answers], shelf["copy"])["logprob"]
    assert rows["logprob"][:2].tolist() == pytest.approx(ended.tolist(), abs=1e-4)
    assert rows["logprob"][2:].tolist() == pytest.approx(
        model.score(prompts, answers, shelf["copy"])["logprob"].tolist()
    )


def test_the_measure_of_a_choice_counts_in_the_tokens_that_were_scored(tiny, states):
    lone = {"a": states["a"]}
    task = Task("which", ["one?"], ["a"], kind="choice", choices=[("a", "bcdefgh" * 4)])
    by = {
        n: Experiment(tiny, lone, Task("t", task.prompts, task.answers, "raw", "choice", task.choices, n)).run()
        for n in ("none", "token")
    }
    # 28 bytes are less probable than one, and may be more so each
    assert by["none"]["said"][0] == "a"
    scored = tiny.score("one?", list(task.choices[0]), states["a"])["logprob_per_token"]
    assert by["token"]["choice"][0] == scored.idxmax()


def test_bits_of_a_text_are_those_of_all_its_bytes_after_the_context(tiny, states):
    texts = ["héllo", "ab" * 40, "c"]
    rows = Experiment(tiny, states, [text_task("texts", texts, context="\n\n"), *TASKS[:1]]).run()
    part = rows[rows.task == "texts"]
    for row in part.itertuples():
        assert row.answer == texts[row.example] and pd.isna(row.said)
        nats = -tiny.score("\n\n", row.answer, states[row.state])["logprob"][0]
        assert row.bytes == len(row.answer.encode())
        assert row.bits_per_byte == pytest.approx(nats / math.log(2) / row.bytes, rel=1e-5)
    assert str(rows["right"].dtype) == "boolean" and part["right"].isna().all()
    assert rows[rows.task == "one"]["right"].notna().all()


def test_a_style_is_judged_in_what_was_written(tiny, states):
    seen = []

    def judge(text):
        seen.append(text)
        return len(seen) % 2 == 0

    rows = Experiment(tiny, states, Task("style", ["ab", "cd"], kind="style", judge=judge), max_tokens=4).run()
    assert rows["said"].tolist() == seen and rows["right"].tolist() == [False, True] * 3
    assert rows["answer"].isna().all() and rows["logprob"].isna().all() and rows["bytes"].isna().all()
    assert (
        rows["said"][2]
        == tiny.chat("ab", states["a"], template="raw", temperature=0, presence=0, frequency=0, max_tokens=4).text
    )


@pytest.mark.parametrize("arch", ["x052", "x060"])
def test_every_kind_runs_on_every_version(tmp_path, arch):
    import torch

    dims = Dims(arch, L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    torch.save(random_weights(dims, {"maa": 4, "decay": 4}), tmp_path / "m.pth")
    model = load_model(tmp_path / "m.pth")
    choice = Task("which", ["a"], ["b"], kind="choice", choices=[("b", "cd")])
    rows = Experiment(model, [None], [TASKS[0], choice, text_task("t", ["some text"])]).run()
    assert rows["logprob"].lt(0).all() and len(rows) == 5


def test_another_template_than_a_state_was_tuned_for_is_one_warning_at_the_line_of_the_user(tiny, random_state):
    states = {name: random_state(name, seed) for seed, name in enumerate(("one", "b", "c"))}
    states = {name: state.replace(card=state.card.replace(template="g1")) for name, state in states.items()}
    tasks = [Task("one", ["ab", "c"], ["x", "y"]), Task("b", ["d"], ["x"], template="g1")]
    calls = (
        lambda: Experiment(tiny, states, tasks, batch=1, max_tokens=2).run(),
        lambda: controlled(tiny, states, tasks),
    )
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            call()
        assert {one.filename for one in caught} == {__file__}
        first = str(caught[0].message)
        assert "'one' for 'g1', task 'one' asks in 'raw' (and 2 more such pairs)" in first and "auto" not in first
        assert len(caught) == (1 if call is calls[0] else 2)  # of its controls, too
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Experiment(tiny, states, tasks[1], max_tokens=2).run()
    assert all(state.card.template == "g1" for state in states.values())


def test_mistakes_are_named(tiny, states, random_state):
    with pytest.raises(ArgError, match="tasks: empty"):
        Experiment(tiny, states, [])
    with pytest.raises(ArgError, match="need a Task"):
        Experiment(tiny, states, ["sort"])
    for name in ("max_tokens", "batch"):
        with pytest.raises(ArgError, match=name):
            Experiment(tiny, states, TASKS, **{name: 0})
    with pytest.raises(MismatchError, match=r"'other'.*L=3"):
        Experiment(tiny, {"other": State(random_state().wkv[[0, 1, 1]]).named("other")}, TASKS).run()
    broken = random_state("nan").replace(wkv=random_state().wkv * math.nan)
    with pytest.raises(NonFiniteError):
        Experiment(tiny, [broken], TASKS).run()


def test_an_interrupt_while_answers_are_scored_is_a_cancel(tiny, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment_parts, "score", interrupted)
    with pytest.raises(Cancelled, match="nothing is kept, run it again"):
        Experiment(tiny, [None], Task("a", ["ab"], ["b"])).run()
