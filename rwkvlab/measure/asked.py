"""The questions that several tasks ask, in batches, and what many voices' answers to them are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rwkvlab.measure.mixture import Heard, rows_at_once
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

CERTAIN = 2.0**-53  # what is taken for 1 - p where p is 1 in float64


def questions_of(tasks: list[Task]) -> dict[Template, dict[str, list[str]]]:
    """Return, by template, every question with all the answers that some task wants to it."""
    asked: dict[Template, dict[str, dict[str, None]]] = {}
    for task in tasks:
        questions = asked.setdefault(get_template(task.template), {})
        for prompt, answer in zip(task.prompts, task.answers, strict=True):
            questions.setdefault(prompt, {})[answer] = None
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


def outcomes(task: Task, tasks: list[Task], found: dict[tuple[Template, str], list[Heard]]) -> np.ndarray:
    """Return right (0 or 1), log-odds, KL and log-probability [4,P,N] of the P points and N examples of a task."""
    form = get_template(task.template)
    asked = questions_of(tasks)[form]
    rivals: dict[str, set[str]] = {}
    for one in tasks:
        if one is not task and get_template(one.template) == form:
            for prompt, answer in zip(one.prompts, one.answers, strict=True):
                rivals.setdefault(prompt, set()).add(answer)
    said, columns = [], []
    for prompt, answer in zip(task.prompts, task.answers, strict=True):
        heard = found[form, prompt]
        logprob, kl = (np.concatenate([getattr(one, name) for one in heard]) for name in ("logprob", "kl"))  # [P,n]
        at = asked[prompt].index(answer)
        against = [i for i, other in enumerate(asked[prompt]) if other in rivals.get(prompt, set()) - {answer}]
        own = logprob[:, at]
        if against:
            odds = own - np.logaddexp.reduce(logprob[:, against], axis=1)
        else:
            odds = own - np.log(-np.expm1(np.minimum(own, -CERTAIN)))
        columns.append(np.stack([odds, kl[:, at], own]))  # [3,P]
        said.append([text for one in heard for text in one.said])
    right = [task.grade(list(texts)) for texts in zip(*said, strict=True)]  # [P,N]
    return np.concatenate([np.asarray(right, dtype=float)[None], np.stack(columns, axis=2)])
