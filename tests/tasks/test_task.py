"""Task: what it holds, how it grades, and what is refused."""

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.tasks import Task
from rwkvlab.tasks.task import Example, text_task


def test_prompts_are_written_in_the_template():
    task = Task("t", ["a", "b"], ["1", "2"], template="world")
    assert task.formatted() == ["User: a\n\nAssistant:", "User: b\n\nAssistant:"]
    assert list(task.examples())[1] == ("User: b\n\nAssistant:", " 2\n\n")
    assert len(task) == 2


def test_grading_looks_at_the_text_without_the_space_around_it():
    assert Task("t", ("a", "b", "c"), ("1", "2", "x y")).grade([" 1\n", "22", "x  y"]) == [True, False, False]


@pytest.mark.parametrize(
    ("prompts", "answers"), [([], []), (["a"], []), ("a", "b"), (["a"], [""]), (["a"], [1]), (["a"], ["1", "2"])]
)
def test_lists_that_do_not_match_are_refused(prompts, answers):
    with pytest.raises(ArgError, match="task 't'"):
        Task("t", prompts, answers)


def test_a_wrong_template_or_a_wrong_number_of_texts_is_refused():
    with pytest.raises(ArgError, match="template"):
        Task("t", ["a"], ["b"], template="wurld")
    with pytest.raises(ArgError, match="1 texts"):
        Task("t", ["a"], ["b"]).grade([])


def test_a_task_is_made_of_examples_and_gives_them_back():
    pairs = [("a", "1"), Example("b", "2")]
    task = Task.of("t", pairs, template="world")
    assert task == Task("t", ["a", "b"], ["1", "2"], template="world")
    assert list(task) == [Example("a", "1"), Example("b", "2")]
    chosen = [Example("q", "x", ("x", "y"))]
    assert list(Task.of("t", chosen, kind="choice", normalise="byte")) == chosen
    styled = Task.of("t", [Example("a")], kind="style", judge=str.isupper)
    assert list(styled) == [Example("a")] and styled.grade(["A"]) == [True]
    for wrong in ("ab", [("a",)], ["ab"], [3], None):
        with pytest.raises(ArgError, match="task 't'"):
            Task.of("t", wrong)


def test_a_last_word_is_right_where_the_text_begins_with_it():
    said = {" cat, and": True, "cat": True, " cat's": True, "category": False, "cat5": False, " a cat": False}
    task = Task("t", ["a"] * len(said), [" cat"] * len(said), kind="last word")
    assert task.grade(list(said)) == list(said.values())
    assert Task("t", ["a", "b"], ["猫", "猫"], kind="last word").grade(["猫。狗", "猫狗"]) == [True, False]


def test_texts_have_one_context_and_no_grade():
    task = text_task("t", ["one", "two"])
    assert task.prompts == ("\n", "\n") and task.answers == ("one", "two") and task.kind == "text"
    with pytest.raises(ArgError, match="only bits per byte"):
        task.grade(["one", "two"])
    with pytest.raises(ArgError, match="texts: need"):
        text_task("t", "one")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "poem"},
        {"normalise": "letter"},
        {"kind": "choice"},
        {"kind": "choice", "choices": [("1",), ("2",)]},
        {"kind": "choice", "choices": [("1", "x"), ("y", "x")]},
        {"kind": "choice", "choices": ["12", "12"]},
        {"kind": "choice", "choices": [("1", "x")]},
        {"kind": "choice", "choices": 3},
        {"choices": [("1", "x"), ("2", "x")]},
        {"kind": "style"},
        {"kind": "style", "judge": len},
        {"judge": len},
        {"kind": "style", "answers": (), "judge": "json"},
        {"kind": "last word", "answers": ["1", "  "]},
    ],
)
def test_what_does_not_go_with_a_kind_is_refused(fields):
    with pytest.raises(ArgError, match="task 't'"):
        Task(**{"name": "t", "prompts": ["a", "b"], "answers": ["1", "2"], **fields})


def test_a_name_is_a_text():
    for wrong in ([], None, 5, ("a",), {}, ""):
        with pytest.raises(ArgError, match="task: name: need a non-empty string"):
            Task(wrong, ["a"], ["b"])


def test_a_judge_that_fails_is_told_with_its_example():
    task = Task("t", ["a", "b"], kind="style", judge=lambda text: 1 / len(text) > 0)
    with pytest.raises(ArgError, match=r"task 't': judge: fails at example 1 \('b'\).*ZeroDivisionError") as caught:
        task.grade(["x", ""])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_task_without_answers_has_nothing_to_tune_on():
    with pytest.raises(ArgError, match="no answers to tune on"):
        Task("t", ["a"], kind="style", judge=len).examples()
