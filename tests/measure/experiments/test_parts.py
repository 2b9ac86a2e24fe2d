"""How an experiment is cut: bounds on rows, bytes and characters, nothing lost and nothing twice."""

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.experiments import parts as experiment_parts
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.measure.experiments.parts import apart, cut, scored
from rwkvlab.measure.sweeps.curve import sweep
from rwkvlab.tasks.task import Task, text_task
from rwkvlab.tasks.templates import get_template

ARMS = {f"s{i}": None for i in range(5)}


def pairs(parts):
    return [
        (name, question, answer)
        for part in parts
        for name in part.names
        for question, answers in zip(part.questions, part.answers, strict=True)
        for answer in answers
    ]


@pytest.mark.parametrize("rows", [1, 3, 7, 256])
def test_every_answer_from_every_state_is_in_one_part(tiny, rows):
    tasks = [Task("a", [f"q{i}" for i in range(9)], ["x"] * 9), Task("b", ["q1", "r"], ["y", "x"])]
    parts = cut(tiny, ARMS, tasks, [5, 5], rows)
    wanted = {(name, p, a) for name in ARMS for task in tasks for p, a in zip(task.prompts, task.answers, strict=True)}
    assert sorted(pairs(parts)) == sorted(wanted)
    assert all(len(part.rows) <= rows for part in parts)


def test_large_states_make_small_parts(tiny, monkeypatch):
    monkeypatch.setattr(experiment_parts, "BYTES", 4 * 2 * 2 * 16 * 16 * 3)  # three states of this model
    parts = cut(tiny, ARMS, [Task("a", list("abcdefg"), ["x"] * 7)], [5], 256)
    assert {len(part.rows) for part in parts} == {2, 3}


def test_long_texts_are_spread_and_a_text_longer_than_the_bound_is_alone(tiny, monkeypatch):
    monkeypatch.setattr(experiment_parts, "CHARACTERS", 5 * 100)  # a hundred from each of five states
    texts = ["a" * 40, "b" * 40, "c" * 40, "d" * 300, "e"]
    parts = cut(tiny, ARMS, [text_task("t", texts)], [0], 256)
    assert [part.answers for part in parts] == [((texts[0], texts[1]),), ((texts[2],),), ((texts[3],),), ((texts[4],),)]
    asked = Task("q", ["x" * 60, "y" * 61, "z"], ["1", "2", "3"])
    assert [part.questions for part in cut(tiny, ARMS, [asked], [5], 256)] == [("z", "x" * 60), ("y" * 61,)]


def test_what_is_written_at_another_length_or_in_another_template_is_another_part(tiny):
    tasks = [Task("a", ["q"], ["x"]), Task("b", ["q"], ["x"], template="world"), Task("c", ["q"], ["x"])]
    parts = cut(tiny, {"zero": None}, tasks, [5, 5, 0], 256)
    assert [(part.template.name, part.max_tokens) for part in parts] == [("raw", 5), ("world", 5), ("raw", 0)]


def test_two_tasks_of_one_name_are_refused_since_tables_tell_them_apart_by_it(tiny, random_state):
    tasks = [Task("arc", ["a"], ["b"]), Task("arc", ["c"], ["d"])]
    for refused in (
        lambda: Experiment(tiny, None, tasks),
        lambda: sweep(tiny, tasks, random_state(), None, [0]),
    ):
        with pytest.raises(ArgError, match=r"tasks: two are called 'arc'; give load_task\(…, name=…\)"):
            refused()


def test_answers_of_which_one_begins_another_get_their_end(tiny):
    encode = tiny.encode
    assert apart(tiny, ["ab", "ac", "b"], "\n") is apart(tiny, ["ab", "ab"], "\n") is apart(tiny, [], "") is None
    assert apart(tiny, ["ab", "x", "abc"], "\n") == [tuple(encode(text)) for text in ("ab\n", "x\n", "abc\n")]
    for end in ("", "c"):  # nothing, or what is in the other answer too
        assert apart(tiny, ["ab", "abcd"], end) == [(*encode(text + end), 0) for text in ("ab", "abcd")]
    world = [tuple(encode(f" {text}\n\n")) for text in ("ab", "abc")]
    assert scored(tiny, get_template("world"), ["ab", "abc"]) == world
    assert scored(tiny, get_template("world"), ["ab", "cab"]) == ["ab", "cab"]


def test_tokens_that_differ_need_no_end(tiny, monkeypatch):
    whole = {"ab": [1], "abc": [2]}
    monkeypatch.setattr(type(tiny), "encode", lambda _, text: whole[text])
    assert apart(tiny, ["ab", "abc"], "") is None
