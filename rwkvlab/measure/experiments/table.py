"""The rows of an experiment, made of what its parts gave: texts graded, choices made, bits and bytes counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from rwkvlab.measure.experiments.parts import Answer, Answered, Part, continuation, scored
from rwkvlab.tasks.task import Example, Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

COLUMNS = (
    *("task", "state", "example", "prompt", "answer", "said", "right", "logprob"),
    *("kind", "tokens", "bytes", "bits_per_byte", "choice"),
)
Key = tuple[Template, int, str, str]  # template, tokens written, state, question


def tabulate(
    model: Model,
    names: Sequence[str],
    tasks: Sequence[tuple[Task, int]],
    parts: Sequence[Part],
    results: Mapping[int, Answered],
) -> pd.DataFrame:
    """Return the table that `Experiment.run` describes; tasks come with how many tokens are written for them."""
    said: dict[Key, str | None] = {}
    logprobs: dict[Key, dict[Answer, float]] = {}
    for number, part in enumerate(parts):
        for at, (name, question) in enumerate(part.rows):
            key = (part.template, part.max_tokens, name, question)
            said[key] = results[number].said[at]
            answers = part.answers[at % len(part.questions)]
            logprobs.setdefault(key, {}).update(zip(answers, results[number].logprobs[at], strict=True))
    rows: list[tuple[Any, ...]] = []
    sizes: dict[Template, _Sizes] = {}
    for task, length in tasks:
        form = get_template(task.template)
        counted = sizes.setdefault(form, _Sizes(model, form))
        for name in names:
            keys = [(form, length, name, prompt) for prompt in task.prompts]
            found = [logprobs[key] for key in keys]
            rows += _rows(task, name, [said[key] for key in keys], found, counted)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    graded = bool if all(task.kind != "text" for task, _ in tasks) else "boolean"
    return table.astype({"right": graded, "tokens": "Int64", "bytes": "Int64", "choice": "Int64"})


def _rows(
    task: Task, state: str, said: list[str | None], logprobs: list[dict[Answer, float]], sizes: _Sizes
) -> list[tuple[Any, ...]]:
    picks: list[int | None] = [None] * len(task)
    if task.kind == "choice":
        picks = [_pick(task, *pair, sizes) for pair in zip(task, logprobs, strict=True)]
        said = [row[pick or 0] for row, pick in zip(task.choices, picks, strict=True)]
    right: Sequence[bool | None] = [None] * len(task)
    if task.kind != "text":
        right = task.grade([text or "" for text in said])
    rows = []
    for at, example in enumerate(task):
        scored = sizes.choices(example).get(example.answer, example.answer)
        logprob, answer = logprobs[at].get(scored, math.nan), example.answer or None
        head = (task.name, state, at, example.prompt, answer, said[at], right[at], logprob)
        rows.append((*head, task.kind, *sizes.of(example.answer, scored, logprob), picks[at]))
    return rows


class _Sizes:
    """Tokens and bytes of answers as they are scored in one template, each counted once; an end is of no bytes."""

    def __init__(self, model: Model, form: Template) -> None:
        self._model, self._form = model, form
        self._known: dict[str, tuple[int, int]] = {}
        self._choices: dict[tuple[str, ...], dict[str, Answer]] = {}

    def choices(self, example: Example) -> dict[str, Answer]:
        """Return the choices of an example, each with what was scored for it."""
        if example.choices not in self._choices:
            found = scored(self._model, self._form, example.choices)
            self._choices[example.choices] = dict(zip(example.choices, found, strict=True))
        return self._choices[example.choices]

    def count(self, answer: str, scored: Answer) -> tuple[int, int]:
        if answer not in self._known:
            text = continuation(self._form, answer)
            self._known[answer] = len(self._model.encode(text)), len(text.encode())
        tokens, size = self._known[answer]
        return tokens if isinstance(scored, str) else len(scored), size

    def of(self, answer: str, scored: Answer, logprob: float) -> tuple[int | None, int | None, float]:
        """Return tokens, bytes and bits per byte; nothing where there is no answer."""
        if not answer:
            return None, None, math.nan
        tokens, size = self.count(answer, scored)
        return tokens, size, -logprob / math.log(2) / size


def _pick(task: Task, example: Example, logprobs: Mapping[Answer, float], sizes: _Sizes) -> int:
    """Return the index of the most probable choice, the first of equals."""
    unit = {"none": None, "token": 0, "byte": 1}[task.normalise]
    listed = [(text, sizes.choices(example)[text]) for text in example.choices]
    values = [logprobs[one] / (1 if unit is None else sizes.count(text, one)[unit]) for text, one in listed]
    return values.index(max(values))
