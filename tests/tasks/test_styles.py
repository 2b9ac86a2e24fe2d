"""Judges of style: what each takes and what not."""

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.tasks.styles import STYLES, count_words, style_task

CASES = {
    "json": (
        ['{"a": [1, null]}', " []\n"],
        ["", "5", '"a"', "{a: 1}", '{"a": NaN}', "[1] yes", "```json\n{}\n```", "[" * 99_999],
    ),
    "emoji": (["fine 🎉", "☀️", "🇨🇳", "⭐", "👩‍🚀"], ["", "fine :)", "©", "1️", "文", "→", "—"]),
    "han": (["学而时习之，不亦说乎？", "三 3 〇々", "𠀀"], ["", "123，。", "学 a", "ひらがな", "学ぶ", "é"]),
    "brief": (["yes", "a " * 20, "文" * 20, "一二 three."], ["", " … ", "a " * 21, "文" * 21]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_judge_takes_its_form_and_nothing_else(name):
    right, wrong = CASES[name]
    assert [STYLES[name](text) for text in right] == [True] * len(right)
    assert [STYLES[name](text) for text in wrong] == [False] * len(wrong)


def test_words_are_counted_between_blanks_and_han_letters_one_by_one():
    assert [count_words(text) for text in ("", "a b", "a - b", "文言文", "用GPU跑")] == [0, 2, 2, 3, 3]


def test_a_style_task_grades_by_its_judge():
    task = style_task("json", ["give me JSON", "again"])
    assert task.template == "world" and len(task) == 2 and task.answers == ()
    assert task.grade(["{}", "no"]) == [True, False]
    assert style_task("long", ["a"], lambda text: len(text) > 3).grade(["abcd"]) == [True]
    for judge in (None, "json", 3):
        with pytest.raises(ArgError, match="judge: need a function of a text, or a name of json, emoji"):
            style_task("poem", ["a"], judge)
