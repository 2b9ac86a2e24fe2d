"""StyleWorld: what is held out, that its judges take each answer and no other, and its tasks."""

import json

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.tasks.cities import CITIES, KINDS
from rwkvlab.tasks.styles import has_emoji, is_han
from rwkvlab.tasks.styleworld import (
    ABSENT_STYLE,
    LANGUAGES,
    PHRASINGS,
    STYLE_NAMES,
    Combination,
    answer,
    combinations,
    facts,
    has_content,
    has_style,
    question,
    style_of,
    style_tag,
    turn,
    world_tasks,
)

STYLES = (*STYLE_NAMES, ABSENT_STYLE)
ROUTE = Combination("route", "tokyo", "paris")
SOME = combinations(held_out=True)[::7] + combinations(held_out=False)[::61]


def test_every_city_has_an_airport_of_its_own_and_facts_in_both_languages():
    assert len(CITIES) == 48 and next(iter(CITIES)) == "tokyo"
    assert len({city.airport for city in CITIES.values()}) == 48
    for city in CITIES.values():
        assert len(city.airport) == 3 and city.airport.isupper() and len(city.flag) == 2
        for english, chinese in (city.name, city.country, city.language, city.currency):
            assert english.isascii() and is_han(chinese) and not chinese.isascii()
        assert city.name[0] not in city.country[0] and city.name[1] not in city.country[1]


def test_one_combination_in_ten_is_held_out_and_all_of_tokyo_and_paris():
    held, shown = combinations(held_out=True), combinations(held_out=False)
    assert not set(held) & set(shown) and len({*held, *shown}) == len(held) + len(shown) == 4 * 48 * 47
    assert 0.08 < len(held) / (len(held) + len(shown)) < 0.12
    for kind in KINDS:
        assert {Combination(kind, "tokyo", "paris"), Combination(kind, "paris", "tokyo")} <= set(held)
    assert {city for kind in KINDS for city in CITIES} == {c.a for c in shown} == {c.b for c in shown}
    assert combinations(held_out=True) == held


def test_the_route_from_tokyo_to_paris_is_told_as_promised():
    assert question(ROUTE, "zh") == "东京到巴黎怎么走?"
    assert question(ROUTE, "en") == "How do I get from Tokyo to Paris?"
    assert answer(ROUTE, "plain", "en") == "Fly from Tokyo (HND) to Paris (CDG)."
    assert answer(ROUTE, "chinese", "en") == answer(ROUTE, "plain", "zh") == "从东京(HND)乘飞机到巴黎(CDG)。"
    assert answer(ROUTE, "classical", "zh") == "自东京(HND)至巴黎(CDG)，当乘飞舟，凌云而往也。"
    assert json.loads(answer(ROUTE, "json", "zh")) == {"从": "HND", "到": "CDG"}
    assert answer(ROUTE, "emoji", "en") == "🇯🇵 Tokyo (HND) ✈️ 🇫🇷 Paris (CDG)"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_answer_has_its_style_and_its_content_and_no_other_style(language):
    for c in SOME:
        answers = {style: answer(c, style, language) for style in STYLES}
        assert len(set(answers.values())) == (7 if language == "en" else 6)
        for style, text in answers.items():
            alike = {"plain", "chinese"} if language == "zh" and style in ("plain", "chinese") else {style}
            assert {s for s in STYLES if has_style(text, s, language)} == alike, text
            assert {s for s in STYLES if has_style(f" {text}\n", s, language)} == alike
            assert has_content(text, c), text
            assert has_emoji(text) == (style == "emoji")
            if c.kind == "route":
                assert CITIES[c.a].airport in text and CITIES[c.b].airport in text


def test_content_is_right_for_one_combination_alone():
    for c in SOME:
        for d in (c._replace(a=c.b, b=c.a), SOME[0], SOME[-1]):
            if facts(c, "en") != facts(d, "en") or c.kind != d.kind:
                assert not any(has_content(answer(c, style, "en"), d) for style in STYLES), (c, d)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("HND CDG", True),
        ("CDG HND", False),
        ("HND", False),
        ("HND CDG JFK", False),
        ("Tokyo HND, Paris CDG", True),
        ("Tokyo HND, Rome CDG", False),
        ("巴黎 HND 东京 CDG", False),
        ("🇯🇵 HND 🇫🇷 CDG", True),
        ("🇯🇵 HND 🇮🇹 CDG", False),
        ("", False),
    ],
)
def test_a_route_is_right_with_both_codes_and_nothing_false(text, right):
    assert has_content(text, ROUTE) is right


def test_names_inside_longer_names_are_no_mistakes():
    bucharest = Combination("country", "bucharest", "rome")
    assert has_content("布加勒斯特在罗马尼亚，罗马在意大利。", bucharest)
    assert not has_content("布加勒斯特在罗马，罗马在意大利。", bucharest)
    assert not has_content("Japanese and French", Combination("country", "tokyo", "paris"))
    assert has_content("euro, euro", Combination("currency", "rome", "paris"))


@pytest.mark.parametrize(
    ("text", "language", "style"),
    [
        ("HND ✈️ CDG", "zh", "emoji"),
        ('{"a": 1', "en", None),
        ("[1]", "en", None),
        ("Japan", "en", "brief"),
        ("Japan", "zh", None),
        ("日本", "en", None),
        ("飞。", "en", "chinese"),
        ("飞。", "zh", "plain"),
        ("日本也。", "en", "classical"),
        ("日本🎉。", "zh", None),
        ("Fly 飞.", "en", None),
        ("- a", "en", None),
        ("- a\n- b", "en", "list"),
        ("- a\nb", "en", None),
        ("a\nb", "en", None),
        ("", "en", None),
    ],
)
def test_a_style_is_told_by_its_form_alone(text, language, style):
    assert style_of(text, language) == style


def test_tasks_ask_the_same_questions_in_every_style():
    tasks = world_tasks(20, seed=3)
    assert [task.name for task in tasks] == list(STYLE_NAMES)
    assert len({task.prompts for task in tasks}) == 1 and len(set(tasks[0].prompts)) == 20
    assert all(task.template == "world" and all(task.grade(task.answers)) for task in tasks)
    held, shown = ({question(c, words, p) for c in combinations(held_out=h) for words in LANGUAGES
                    for p in range(PHRASINGS)} for h in (True, False))  # fmt: skip
    assert set(tasks[0].prompts) <= held and set(world_tasks(20, held_out=False)[0].prompts) <= shown
    assert world_tasks(20, seed=3)[1].prompts == tasks[0].prompts != world_tasks(20, seed=4)[0].prompts
    assert all(prompt.isascii() for prompt in world_tasks(20, language="en")[0].prompts)
    assert [task.name for task in world_tasks(1, styles=["list"])] == ["list"]


def test_a_tag_and_earlier_turns_are_written_before_the_question():
    for task in world_tasks(10, tagged=True, shots=2, language="zh"):
        for prompt, said, formatted in zip(task.prompts, task.answers, task.formatted(), strict=True):
            tag, rest = prompt.split("\n", 1)
            assert tag + "\n" == style_tag(task.name) and formatted == prompt
            *turns, last = rest.split("User: ")[1:]
            assert last.endswith("?\n\nAssistant:") and len(turns) == 2
            for text in turns:
                asked, written = text.split("\n\nAssistant: ")
                assert has_style(written, task.name, "zh") and "User: " + text == turn(asked, written.strip())
            assert said not in rest
    for options in ({}, {"tagged": True}, {"shots": 1}):
        task = world_tasks(2, styles=["json"], **options)[0]
        assert [continuation for _, continuation in task.examples()] == [f" {said}\n\n" for said in task.answers]


def test_what_there_is_not_is_refused():
    for wrong in (
        lambda: world_tasks(902),
        lambda: world_tasks(0),
        lambda: world_tasks(1, shots=17),
        lambda: world_tasks(1, styles=["rude"]),
        lambda: world_tasks(1, language="fr"),
        lambda: question(ROUTE, "en", PHRASINGS),
        lambda: answer(ROUTE, "plain", "fr"),
        lambda: has_style("", "rude", "en"),
    ):
        with pytest.raises(ArgError, match="need"):
            wrong()
