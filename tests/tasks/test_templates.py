"""Templates: the exact prompts, the cleaning of questions, and what is refused."""

import pytest

from rwkvlab.errors import ArgError, PromptError
from rwkvlab.tasks import TEMPLATES, Template, get_template


def test_the_prompts_are_the_published_ones():
    asked = {name: template.format("Hi?") for name, template in TEMPLATES.items()}
    assert asked == {
        "world": "User: Hi?\n\nAssistant:",
        "g1": "User: Hi?\n\nAssistant: <think",
        "g1-fast": "User: Hi?\n\nAssistant: <think>\n</think",
        "raw": "Hi?",
    }


def test_a_question_is_cleaned_of_blank_lines_for_chat_and_left_alone_for_raw():
    question = "  one\r\n\r\n  two\n\u3000\n\nthree\rfour\n\n"
    assert TEMPLATES["world"].format(question) == "User: one\ntwo\nthree\nfour\n\nAssistant:"
    assert TEMPLATES["raw"].format(question) == question


def test_indentation_without_a_blank_line_stays():
    assert TEMPLATES["world"].tidy("if x:\n    y") == "if x:\n    y"


def test_braces_and_slots_in_a_question_are_plain_text():
    assert TEMPLATES["world"].format("{question} {0} {x}") == "User: {question} {0} {x}\n\nAssistant:"


def test_an_empty_question_is_refused():
    for name in TEMPLATES:
        with pytest.raises(PromptError):
            TEMPLATES[name].format("")
    with pytest.raises(PromptError):
        TEMPLATES["world"].format(" \n\n ")
    with pytest.raises(PromptError):
        TEMPLATES["raw"].format(b"hi")


def test_an_example_ends_its_turn():
    assert TEMPLATES["world"].example("q", "a\n\nb") == ("User: q\n\nAssistant:", " a\nb\n\n")
    assert TEMPLATES["raw"].example("q>", "a\n") == ("q>", "a\n")


def test_a_template_of_ones_own_is_taken_as_it_is():
    mine = Template("mine", "Q: {question}\nA:", stop=("\n",))
    assert get_template(mine) is mine
    assert get_template("g1") is TEMPLATES["g1"]


@pytest.mark.parametrize("bad", ["World", "", None, 3])
def test_an_unknown_template_is_refused_with_the_names(bad):
    with pytest.raises(ArgError, match="world, g1, g1-fast, raw"):
        get_template(bad)


@pytest.mark.parametrize(
    "fields",
    [("t", "no slot"), ("t", "{question}{question}"), ("", "{question}"), ("t", 3), ("t", "{question}", "", "\n")],
)
def test_a_broken_template_is_refused(fields):
    with pytest.raises(ArgError):
        Template(*fields)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ArgError, match="stop"):
        Template("t", "{question}", stop=("",))


def test_stops_may_be_a_list_and_a_lone_surrogate_has_its_place_in_the_question():
    assert Template("mine", "{question}", stop=["a"]).stop == ("a",)
    assert hash(Template("mine", "{question}", stop=["a"]))
    with pytest.raises(PromptError, match=r"question: lone surrogate U\+D800 at character 1; remove"):
        get_template("world").format("a\ud800")
