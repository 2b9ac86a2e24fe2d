"""The arms of the evidence: the same held-out questions with no state, tags, shots, read or tuned states, controls."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import pandas as pd

from rwkvlab.bundled.evidence_asking import Ask, Said, ask
from rwkvlab.bundled.skills import FUNCTIONS, SKILLS, Skill, queries
from rwkvlab.model.engine import Model
from rwkvlab.states.controls import random_like, shuffled, transposed
from rwkvlab.states.state import State
from rwkvlab.tasks.styleworld import (
    LANGUAGES,
    PHRASINGS,
    Combination,
    answer,
    combinations,
    has_content,
    has_style,
    question,
    style_tag,
    turn,
)

SHOTS = 2  # solved examples in front of the question: with it as many as the longest documents in training
RANDOM = 20  # states of the same singular values
STOP = {"function": "\n", "style": "\n\n"}  # what ends an answer, beside the end of text
WRITTEN = {"function": 0, "style": 64}  # tokens where it is not exact: a function has nothing but the exact answer
# what is read in front of a question or into a state, by arm: (in the prompt, into the state, with token-shifts)
PLAIN = {
    "no state": ("", "", True),
    "tag": ("tag", "", True),
    "shots": ("shots", "", True),
    "read tag": ("", "tag", True),
    "read tag, no shifts": ("", "tag", False),
    "read shots": ("", "shots", True),
    "read shots, no shifts": ("", "shots", False),
}
Encode = Callable[[str], tuple[int, ...]]
CONTROLS = ("wrong", "random", "shuffled", "negative", "transposed")
ARMS = (*PLAIN, "state", *CONTROLS)


class Question(NamedTuple):
    """A question as it is written: its prompt, what may stand in front of it, and the answer that is wanted.

    about: the combination and the language, for a style.
    """

    prompt: str
    tag: str
    shots: str
    answer: str
    about: tuple[Combination, str] | None = None


@dataclass(frozen=True)
class Arm:
    """A way to ask: its name, the tuning seed (-1: none), which other state or draw it is, and where it starts."""

    name: str
    seed: int = -1
    which: str = ""
    state: State | None = None


def questions(skill: Skill, n: int, seed: int) -> list[Question]:
    """Return up to `n` held-out questions: for all functions about the same queries, for all styles the same asked.

    The shots are of what is not held out, and of other queries and cities than the question.
    """
    rng = random.Random(seed)
    if skill.family == "function":
        function = FUNCTIONS[skill.name]
        shown = iter(queries(SHOTS * n, seed, held_out=False))
        found = []
        for query in queries(n, seed, held_out=True):
            shots = "".join(f"{other}>{function(other)}\n" for other in (next(shown) for _ in range(SHOTS)))
            found.append(Question(f"{query}>", f"{skill.name}:", shots, function(query)))
        return found
    held, known = combinations(held_out=True), combinations(held_out=False)
    found = []
    for c in rng.sample(held, min(n, len(held))):
        language = rng.choice(LANGUAGES)
        others = [(other, rng.randrange(PHRASINGS)) for other in rng.sample(known, SHOTS)]
        prompt = turn(question(c, language, rng.randrange(PHRASINGS)))
        shots = "".join(turn(question(o, language, p), answer(o, skill.name, language)) for o, p in others)
        said = answer(c, skill.name, language)
        found.append(Question(prompt, style_tag(skill.name), shots, said, (c, language)))
    return found


def arms_of(
    skill: Skill, states: Mapping[tuple[Skill, int], State], seeds: Sequence[int], draws: int = RANDOM
) -> Iterator[Arm]:
    """Yield every arm of a skill; `states` by skill and tuning seed.

    "wrong" are the states of all other skills of its family with the same seed; "random" are draws with the singular
    values of the first seed's state.
    """
    yield from (Arm(name) for name in PLAIN)
    for seed in seeds:
        own = states[skill, seed]
        yield Arm("state", seed, "", own)
        for (other, its), state in states.items():
            if other.family == skill.family and other != skill and its == seed:
                yield Arm("wrong", seed, other.name, state)
        yield from controls_of(own, seed, draws if seed == seeds[0] else 0)


def controls_of(own: State, seed: int, draws: int) -> Iterator[Arm]:
    """Yield the controls that are made of a state; the draws are what takes time, and are made by all cores."""
    yield Arm("shuffled", seed, "", shuffled(own, seed))
    yield Arm("negative", seed, "", -own)
    yield Arm("transposed", seed, "", transposed(own))
    with ThreadPoolExecutor() as pool:
        for draw, state in enumerate(pool.map(partial(random_like, own), range(draws))):
            yield Arm("random", seed, str(draw), state)


def asks_of(encode: Encode, arm: Arm, asked: Sequence[Question], family: str) -> list[Ask]:
    """Return an arm's questions in the tokens of `encode`."""
    inside, read, shifts = PLAIN.get(arm.name, ("", "", True))
    lead = " " if family == "style" else ""
    return [
        Ask(
            (*(encode(getattr(one, inside)) if inside else ()), *encode(one.prompt)),
            encode(lead + one.answer),
            arm.state,
            encode(getattr(one, read)) if read else (),
            shifts,
        )
        for one in asked
    ]


def judge(skill: Skill, one: Question, said: Said) -> dict[str, bool]:
    """Tell of what was said: whether it is the answer (exact), in the style, with the right facts (content).

    For a function all three are one: the exact answer.
    """
    exact = said.exact or (said.text or "").strip() == one.answer
    if one.about is None or exact:
        return {"exact": exact, "style": exact, "content": exact}
    c, language = one.about
    text = (said.text or "").strip()
    return {"exact": False, "style": has_style(text, skill.name, language), "content": has_content(text, c)}


def run_arms(
    model: Model,
    states: Mapping[tuple[Skill, int], State],
    seeds: Sequence[int],
    *,
    n: int = 100,
    seed: int = 0,
    draws: int = RANDOM,
    skills: Sequence[Skill] = SKILLS,
) -> pd.DataFrame:
    """Ask every skill but the sources in every arm; returns one row a (task, arm, seed, which, example).

    Columns: task, family, absent, arm, seed (of tuning, -1 where there is none), which (the other state, or the draw),
    example, language ("" for functions), exact, style, content, right (style, which for a function is exact), logprob
    (natural, of the answer).
    """
    rows: list[tuple[Any, ...]] = []
    encode = cache(lambda text: tuple(model.encode(text)))
    for family, stop in STOP.items():
        asks: list[Ask] = []
        about: list[tuple[Skill, Arm, int, Question]] = []
        for skill in (skill for skill in skills if skill.family == family):
            asked = questions(skill, n, seed)
            for arm in arms_of(skill, states, seeds, draws):
                asks += asks_of(encode, arm, asked, family)
                about += [(skill, arm, at, one) for at, one in enumerate(asked)]
        answers = ask(model, asks, stop, WRITTEN[family]) if asks else []
        for (skill, arm, at, one), said in zip(about, answers, strict=True):
            found = judge(skill, one, said)
            language = one.about[1] if one.about else ""
            head = (skill.name, family, skill.absent, arm.name, arm.seed, arm.which, at, language)
            rows.append((*head, found["exact"], found["style"], found["content"], found["style"], said.logprob))
    names = ["task", "family", "absent", "arm", "seed", "which", "example", "language"]
    return pd.DataFrame(rows, columns=[*names, "exact", "style", "content", "right", "logprob"])
