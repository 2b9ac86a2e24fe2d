"""Task: what it holds, how it grades, and what is refused."""

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.tasks import Task


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
