"""The questions that several tasks ask, in batches, and what many voices' answers to them are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rwkvlab.measure.experiments.parts import continuation
from rwkvlab.measure.sweeps.mixture import Heard, rows_at_once
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

CERTAIN = 2.0**-53  # what is taken for 1 - p where p is 1 in float64


KINDS = ("exact", "last word", "choice")  # of tasks that have a right answer


def questions_of(tasks: list[Task]) -> dict[Template, dict[str, list[str]]]:
    """Return, by template, every question with all the answers that are set against each other."""
    asked: dict[Template, dict[str, dict[str, None]]] = {}
    for task in tasks:
        questions = asked.setdefault(get_template(task.template), {})
        for example in task:
            questions.setdefault(example.prompt, {}).update(dict.fromkeys((example.answer, *example.choices)))
    return {form: {prompt: list(answers) for prompt, answers in found.items()} for form, found in asked.items()}


def batches(model: Model, form: Template, questions: dict[str, list[str]], states: int) -> list[dict[str, list[str]]]:
    """Cut the questions into batches whose prompts have as many tokens; `states` is how many each is asked from."""
    width = max(1, rows_at_once(model) // states)
    lengths: dict[int, list[str]] = {}
    for question in questions:
        lengths.setdefault(len(model.encode(form.format(question))), []).append(question)
    return [
        {question: questions[question] for question in same[at : at + width]}
        for same in lengths.values()
        for at in range(0, len(same), width)
    ]


def outcomes(model: Model, task: Task, tasks: list[Task], found: dict[tuple[Template, str], list[Heard]]) -> np.ndarray:
    """Return right (0 or 1), log-odds, KL and log-probability [4,P,N] of the P points and N examples of a task."""
    form = get_template(task.template)
    asked, rivals = questions_of(tasks)[form], _rivals(task, tasks)
    said, columns = [], []
    for example in task:
        heard, answers = found[form, example.prompt], asked[example.prompt]
        logprob, kl = (np.concatenate([getattr(one, name) for one in heard]) for name in ("logprob", "kl"))  # [P,n]
        own = logprob[:, (at := answers.index(example.answer))]
        against = set(example.choices) or rivals.get(example.prompt, set())
        others = [number for number, text in enumerate(answers) if text in against and number != at]
        columns.append(np.stack([_odds(own, logprob[:, others]), kl[:, at], own]))  # [3,P]
        if task.kind == "choice":
            sizes = [_size(model, continuation(form, text), task.normalise) for text in example.choices]
            values = logprob[:, [answers.index(text) for text in example.choices]] / sizes
            said.append([example.choices[pick] for pick in values.argmax(axis=1)])
        else:
            said.append([text for one in heard for text in one.said])
    right = [task.grade(list(texts)) for texts in zip(*said, strict=True)]  # [P,N]
    return np.concatenate([np.asarray(right, dtype=float)[None], np.stack(columns, axis=2)])


def _rivals(task: Task, tasks: list[Task]) -> dict[str, set[str]]:
    """Return what the other tasks in the same template want to each prompt."""
    rivals: dict[str, set[str]] = {}
    for other in tasks:
        if other is not task and get_template(other.template) == get_template(task.template):
            for prompt, answer in zip(other.prompts, other.answers, strict=True):
                rivals.setdefault(prompt, set()).add(answer)
    return rivals


def _odds(own: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Return the log-odds [P] of log-probabilities own [P] against [P,n] together; where n is 0 against all else."""
    if against.shape[1]:
        return own - np.logaddexp.reduce(against, axis=1)
    return own - np.log(-np.expm1(np.minimum(own, -CERTAIN)))


def _size(model: Model, text: str, normalise: str) -> int:
    return {"none": 1, "token": len(model.encode(text)), "byte": len(text.encode())}[normalise]
