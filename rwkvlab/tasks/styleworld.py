"""StyleWorld: questions about two cities that can be answered in six styles, with exact judges of style and content."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from rwkvlab.errors import ArgError, show
from rwkvlab.shapes import check_range
from rwkvlab.tasks.cities import CITIES, KINDS, NAMED, NAMES
from rwkvlab.tasks.styles import has_emoji, is_brief, is_han, is_json
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import SLOT, TEMPLATES, Template
from rwkvlab.tasks.world_phrases import ANSWERS, JSON_KEYS, QUESTIONS

LANGUAGES = ("en", "zh")
STYLE_NAMES: tuple[str, ...] = ("plain", "emoji", "json", "brief", "chinese", "classical")
ABSENT_STYLE = "list"  # asked of tuned states alone: no bundled model was trained on it
PHRASINGS = 3  # ways to ask for one thing in one language
HELD_OUT = 10  # one combination in ten, by its checksum, is kept out of all training and tuning
# turns that are written out already: a tag, earlier turns and the question
TURNS = Template("world turns", SLOT, lead=" ", stop=("\n\n",), separator="\n\n", clean=False)

_WORLD = TEMPLATES["world"]
_CODE = re.compile("(?<![A-Za-z])[A-Z]{3}(?![A-Za-z])")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}")


class Combination(NamedTuple):
    """What is asked: a kind ("route", "country", "currency", "language") and the keys of two cities of `CITIES`."""

    kind: str
    a: str
    b: str


def combinations(*, held_out: bool) -> list[Combination]:
    """Return the combinations of a kind and two different cities, in a fixed order: those held out, or all the others.

    Held out are about one in ten by their checksum, and whatever is asked of Tokyo and Paris alone.
    """
    rows = (Combination(kind, a, b) for kind in KINDS for a in CITIES for b in CITIES if a != b)
    return [c for c in rows if is_held_out(c) == held_out]


def is_held_out(c: Combination) -> bool:
    """Tell whether a combination is kept out of all training and tuning."""
    return {c.a, c.b} == {"tokyo", "paris"} or zlib.crc32(" ".join(c).encode()) % HELD_OUT == 0


def facts(c: Combination, language: str) -> tuple[str, str]:
    """Return the facts of a and of b that an answer is made of: for a route the airport codes, else words."""
    if c.kind == "route":
        return CITIES[c.a].airport, CITIES[c.b].airport
    at = _language(language)
    return getattr(CITIES[c.a], c.kind)[at], getattr(CITIES[c.b], c.kind)[at]


def question(c: Combination, language: str, phrasing: int = 0) -> str:
    """Return a question in "en" or "zh", in one of three phrasings; ArgError for any other."""
    at = _language(language)
    check_range("phrasing", phrasing, 0, PHRASINGS - 1, whole=True)
    return QUESTIONS[language, c.kind][phrasing].format(a=CITIES[c.a].name[at], b=CITIES[c.b].name[at])


def answer(c: Combination, style: str, language: str) -> str:
    """Return the answer in a style to a question in a language: "chinese" and "classical" are Chinese in any case."""
    _style(style)
    if style in ("chinese", "classical"):
        language = "zh"
    at, (x, y) = _language(language), facts(c, language)
    if style == "json":
        keys = JSON_KEYS[language, c.kind]
        value = dict(zip(keys, (x, y), strict=True)) if len(keys) == 2 else {keys[0]: [x, y]}
        return json.dumps(value, ensure_ascii=False)
    a, b = CITIES[c.a], CITIES[c.b]
    form = ANSWERS[style, language][c.kind]
    return form.format(a=a.name[at], b=b.name[at], x=x, y=y, f=a.flag, g=b.flag, the_x=_the(x), the_y=_the(y))


def style_of(text: str, language: str) -> str | None:
    """Return the style of an answer to a question in a language; None for none. White space around it does not count.

    "json": a JSON object. "list": two lines or more, each a bullet "- ". All others are one line. "emoji": has an
    emoji. "brief": 1 to 20 words, no full stop at the end, no braces or quotes. Sentences that end with "." are plain,
    and Chinese ones (but for airport codes) that end with "。" are classical where that is "也。", else chinese, which
    is the plain style of Chinese questions: "plain" then. Plain, emoji and brief are in the language of the question.
    """
    text, chinese = text.strip(), _language(language) == 1
    lines, words = text.split("\n"), _CODE.sub("", text)
    if is_json(text):
        return "json" if text.startswith("{") else None
    if len(lines) > 1 and all(re.fullmatch("- .+", line) for line in lines):
        return ABSENT_STYLE
    if len(lines) > 1 or not text or text.startswith("- "):
        return None
    if text.endswith("。"):
        sentence = "classical" if text.endswith("也。") else "plain" if chinese else "chinese"
        return sentence if is_han(words) and not has_emoji(text) else None
    if any(char.isalpha() and is_han(char) != chinese for char in words):
        return None
    if has_emoji(text):
        return "emoji"
    if text.endswith("."):
        return None if chinese else "plain"
    return "brief" if is_brief(text) and not re.search('[{}"]', text) else None


def has_style(text: str, style: str, language: str) -> bool:
    """Tell whether an answer to a question in "en" or "zh" has a style, whatever it says; see `style_of`."""
    _style(style)
    found = style_of(text, language)
    return found == ("plain" if style == "chinese" and language == "zh" else style)


def has_content(text: str, c: Combination) -> bool:
    """Tell whether an answer in any style and language has the right facts of both cities, in order, and no other.

    Cities and flags may be left out; where there are any, they are those two, in order.
    """
    a, b = CITIES[c.a], CITIES[c.b]
    flags = _FLAG.findall(text)
    found = [NAMES[c.kind][match.group()] for match in NAMED[c.kind].finditer(text)]
    said = _CODE.findall(text) if c.kind == "route" else [fact for what, fact in found if what == "fact"]
    names = [name for what, name in found if what == "city"]
    return (
        said == list(facts(c, "en"))
        and names in ([], [a.name[0], b.name[0]])
        and (not flags or flags == [a.flag, b.flag])
    )


def style_tag(style: str) -> str:
    """Return the line, with its end, that names a style before the first turn."""
    _style(style)
    return f"{style}:\n"


def turn(asked: str, said: str = "") -> str:
    """Return one turn as it is written in a text; without an answer, the prompt for one."""
    prompt, continuation = _WORLD.example(asked, said)
    return prompt + continuation if said else prompt


def world_tasks(
    n: int = 50,
    seed: int = 0,
    *,
    held_out: bool = True,
    tagged: bool = False,
    shots: int = 0,
    styles: Sequence[str] = STYLE_NAMES,
    language: str | None = None,
) -> list[Task]:
    """Return one exact task a style, named after it, each with the same `n` questions about different combinations.

    held_out: combinations that neither the model nor its states were trained on, else only others. tagged: the style's
    tag stands before the first turn. shots: so many turns of that style and language, about other combinations that
    were trained on, stand before the question. language: of the questions, None either. With a tag or shots, prompts
    are written out (template `TURNS`), else they are questions (template "world"). Raises ArgError.
    """
    rows, shown = combinations(held_out=held_out), combinations(held_out=False)
    check_range("n", n, 1, len(rows), whole=True)
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    check_range("shots", shots, 0, 16, whole=True)
    for style in styles:
        _style(style)
    rng = random.Random(seed)
    asked = []
    for c in rng.sample(rows, n):
        words = language or rng.choice(LANGUAGES)
        others = [other for other in rng.sample(shown, shots + 1) if other != c][:shots]
        asked.append([(each, words, question(each, words, rng.randrange(PHRASINGS))) for each in (*others, c)])
    tasks = []
    for style in styles:
        answers = tuple(answer(turns[-1][0], style, turns[-1][1]) for turns in asked)
        prompts = tuple(turns[-1][2] for turns in asked)
        if tagged or shots:
            tag = style_tag(style) if tagged else ""
            before = ("".join(turn(q, answer(c, style, words)) for c, words, q in turns[:-1]) for turns in asked)
            prompts = tuple(tag + start + turn(prompt) for start, prompt in zip(before, prompts, strict=True))
        tasks.append(Task(style, prompts, answers, template=TURNS if tagged or shots else "world"))
    return tasks


def _language(language: str) -> int:
    if language not in LANGUAGES:
        raise ArgError(f"language: need one of {', '.join(LANGUAGES)}, got {show(language)}")
    return LANGUAGES.index(language)


def _style(style: str) -> None:
    if style not in (*STYLE_NAMES, ABSENT_STYLE):
        raise ArgError(f"style: need one of {', '.join((*STYLE_NAMES, ABSENT_STYLE))}, got {show(style)}")


def _the(name: str) -> str:
    return f"the {name}" if name.startswith("United") or name in ("Netherlands", "Philippines") else name
