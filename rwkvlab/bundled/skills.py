"""What states of the bundled world models are tuned for: functions, styles and sources, with examples and names."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rwkvlab.bundled.corpus import SOURCES, read_source
from rwkvlab.errors import ArgError, show
from rwkvlab.states.names import parse_name
from rwkvlab.tasks.builtin import MICRO_FUNCTIONS, micro_query
from rwkvlab.tasks.styleworld import ABSENT_STYLE, STYLE_NAMES, world_tasks
from rwkvlab.tasks.task import Task

ABSENT_FUNCTION = "swap"  # asked of tuned states alone, as is ABSENT_STYLE: no bundled model was trained on it
FUNCTIONS: dict[str, Callable[[str], str]] = {
    **MICRO_FUNCTIONS,
    ABSENT_FUNCTION: lambda query: query[-1] + query[1:-1] + query[0],
}
STYLES = (*STYLE_NAMES, ABSENT_STYLE)
CHARACTERS = {"tang": 240, "song": 240, "shakespeare": 640, "austen": 640}  # of a window: about 240 tokens
PARAGRAPH = "\n\n"
_PURPOSES = {"tang": "tang_poems", "song": "song_ci", "shakespeare": "shakespeare_plays", "austen": "austen_novels"}


class Skill(NamedTuple):
    """One thing that a state is tuned for: family "function", "style" or "source", and its name in it.

    absent: it was no part of the model's training, so that only the tuned state can know it.
    """

    family: str
    name: str
    absent: bool = False

    @property
    def purpose(self) -> str:
        """What the name of its state's file says, such as "emoji_single_round"."""
        if self.family == "source":
            return _PURPOSES[self.name]
        return f"{self.name}_single_round" if self.family == "style" else f"{self.name}_function"

    @property
    def template(self) -> str:
        """The template that its state is for."""
        return "world" if self.family == "style" else "raw"

    @property
    def context(self) -> int:
        """How many tokens the documents of this family had in training."""
        return {"function": 48, "style": 112, "source": 512}[self.family]


SKILLS = (
    *(Skill("function", name, name == ABSENT_FUNCTION) for name in FUNCTIONS),
    *(Skill("style", name, name == ABSENT_STYLE) for name in STYLES),
    *(Skill("source", name) for name in SOURCES),
)


def file_name(skill: Skill, arch: str, parameters: int, date: str) -> str:
    """Return the name of a state's file as published ones are: rwkv-x070-emoji_single_round-5M-20261123-ctx112."""
    return f"rwkv-{arch}-{skill.purpose}-{parameters / 1e6:.0f}M-{date}-ctx{skill.context}.safetensors"


def skill_of(name: str) -> Skill | None:
    """Return the skill that the name of a state's file says; None where it says none of these."""
    purpose = parse_name(name).purpose
    return next((skill for skill in SKILLS if skill.purpose == purpose), None)


def queries(n: int, seed: int, *, held_out: bool) -> list[str]:
    """Return `n` different queries for which all seven functions give different answers."""
    rng, found = random.Random(seed), dict[str, None]()
    while len(found) < n:
        query = micro_query(rng, held_out=held_out)
        if len({function(query) for function in FUNCTIONS.values()}) == len(FUNCTIONS):
            found[query] = None
    return list(found)


def paragraphs(folder: Path, source: str, *, held_out: bool) -> list[str]:
    """Return the paragraphs of a source in order, as the model's training text had them one after the other."""
    documents = read_source(folder, source, held_out=held_out)
    return [part for document in documents for part in document.split(PARAGRAPH) if part.strip()]


def window(parts: Sequence[str], at: int, characters: int) -> tuple[str, int]:
    """Return the text from paragraph `at` on, cut at a number of characters, and the first paragraph behind it."""
    text, end = parts[at], at + 1
    while len(text) < characters and end < len(parts):
        text, end = text + PARAGRAPH + parts[end], end + 1
    return text[:characters], end


def examples(skill: Skill, n: int, seed: int, folder: Path | None) -> list[tuple[str, str] | str]:
    """Return `n` examples to tune a state on, none of what is held out; another seed gives others.

    Pairs of a prompt and an answer, or texts of a source, which needs the folder that `corpus` wrote; ArgError without.
    """
    if skill.family == "function":
        asked = queries(n, seed, held_out=False)
        return [(f"{query}>", FUNCTIONS[skill.name](query)) for query in asked]
    if skill.family == "style":
        return list(_styled(n, seed)[skill.name].examples())
    if folder is None:
        raise ArgError(f"data: {show(skill.name)} needs the folder of the texts; give --data")
    parts, rng = paragraphs(folder, skill.name, held_out=False), random.Random(seed)
    return [window(parts, rng.randrange(len(parts)), CHARACTERS[skill.name])[0] for _ in range(n)]


@lru_cache(maxsize=8)
def _styled(n: int, seed: int) -> dict[str, Task]:
    return {task.name: task for task in world_tasks(n, seed, held_out=False, styles=STYLES)}


def windows(folder: Path, source: str, n: int) -> list[str]:
    """Return up to `n` held-out texts of a source that do not overlap, spread over all that is held out."""
    parts, found, at = paragraphs(folder, source, held_out=True), [], 0
    while at < len(parts):
        text, at = window(parts, at, CHARACTERS[source])
        found.append(text)
    full = [text for text in found if len(text) == CHARACTERS[source]]
    return [full[at * len(full) // n] for at in range(n)] if len(full) > n else full
