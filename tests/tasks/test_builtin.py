"""The six functions, and what makes their queries ambiguous and their held-out queries held out."""

import random

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.tasks.builtin import CIPHER, LETTERS, MICRO_FUNCTIONS, micro_query, micro_tasks


def test_the_functions_do_what_they_are_called():
    assert {name: function("fbeac") for name, function in MICRO_FUNCTIONS.items()} == {
        "copy": "fbeac", "reverse": "caebf", "sort": "abcef", "next": "gcfbd", "cipher": "yfhjw", "rotate": "beacf",
    }  # fmt: skip
    assert MICRO_FUNCTIONS["next"]("xyz") == "yza"


def test_the_cipher_is_a_permutation_without_fixed_letters():
    assert sorted(CIPHER) == list(LETTERS)
    following = MICRO_FUNCTIONS["next"](LETTERS)
    assert not any(c in (a, b) for a, b, c in zip(LETTERS, following, CIPHER, strict=True))


def test_all_six_answers_to_a_query_differ():
    tasks = micro_tasks(300)
    assert [task.name for task in tasks] == list(MICRO_FUNCTIONS)
    assert len({task.prompts for task in tasks}) == 1
    assert len(set(tasks[0].prompts)) == 300
    assert all(len(set(answers)) == 6 for answers in zip(*(task.answers for task in tasks), strict=True))
    assert {len(prompt) for prompt in tasks[0].prompts} == {5, 6, 7}
    assert set("".join(tasks[0].prompts)) == set(LETTERS + ">")


def test_held_out_queries_are_never_drawn_for_training():
    held = {prompt for task in micro_tasks(2000) for prompt in task.prompts}
    rng = random.Random(0)
    assert not held & {micro_query(rng, held_out=False) + ">" for _ in range(20_000)}
    assert not held & {prompt for task in micro_tasks(2000, held_out=False) for prompt in task.prompts}


def test_the_seed_and_the_tag_decide_the_prompts():
    plain, same, tagged = micro_tasks(3, 5)[2], micro_tasks(3, 5)[2], micro_tasks(3, 5, tagged=True)[2]
    assert plain == same != micro_tasks(3, 6)[2]
    assert tagged.prompts == tuple("sort:" + prompt for prompt in plain.prompts)
    assert tagged.answers == plain.answers


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 10_001}, {"n": 2.5}, {"seed": -1}, {"seed": "x"}])
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ArgError, match=next(iter(settings))):
        micro_tasks(**settings)
