"""Styles that can be judged exactly: JSON, emoji, Chinese letters, brevity; and tasks of answering in one of them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from rwkvlab.errors import ArgError, show
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template

BRIEF = 20  # words of an answer that is brief
# pictographs, flags, dingbats and signs; digits, © and ® are none by themselves
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\u3030\u303d\u3297\u3299]")
_HAN = ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC ITERATION MARK", "IDEOGRAPHIC NUMBER ZERO")


def is_json(text: str) -> bool:
    """Tell whether a text is a JSON object or array, with nothing but white space around it; NaN is no JSON."""

    def constant(word: str) -> NoReturn:
        raise ValueError(word)

    try:
        return isinstance(json.loads(text, parse_constant=constant), (dict, list))
    except (ValueError, RecursionError):
        return False


def has_emoji(text: str) -> bool:
    """Tell whether a text holds a character of the blocks that emoji and other signs come from."""
    return _EMOJI.search(text) is not None


def is_han(text: str) -> bool:
    """Tell whether a text has letters and all of them are Han: digits, signs and punctuation do not count.

    Japanese kana are no Han letters. Modern and classical Chinese cannot be told apart in this way.
    """
    letters = [char for char in text if unicodedata.category(char)[0] == "L" or char == "〇"]
    return bool(letters) and all(unicodedata.name(char, "").startswith(_HAN) for char in letters)


def count_words(text: str) -> int:
    """Return how many words a text has: those between white space, and each Han letter as one of its own."""
    apart = "".join(f" {char} " if unicodedata.name(char, "").startswith(_HAN) else char for char in text)
    return sum(any(char.isalnum() for char in word) for word in apart.split())


def is_brief(text: str) -> bool:
    """Tell whether a text has one word at least and 20 at most, as `count_words` counts."""
    return 1 <= count_words(text) <= BRIEF


STYLES: dict[str, Callable[[str], bool]] = {"json": is_json, "emoji": has_emoji, "han": is_han, "brief": is_brief}


def style_task(
    name: str,
    prompts: Iterable[str],
    judge: Callable[[str], bool] | None = None,
    *,
    template: str | Template = "world",
) -> Task:
    """Return a task whose answers are right where they have a form, whatever they say.

    judge: a function of the written text; None takes the one of this name: "json" (an object or array and nothing
    else), "emoji" (at least one), "han" (all letters are Han), "brief" (1 to 20 words). Raises ArgError.
    """
    found: Any = STYLES.get(name) if judge is None and isinstance(name, str) else judge
    if not callable(found):
        raise ArgError(f"judge: need a function of a text, or a name of {', '.join(STYLES)}; got {show(judge or name)}")
    return Task(name, prompts, template=template, kind="style", judge=found)  # type: ignore[arg-type]
