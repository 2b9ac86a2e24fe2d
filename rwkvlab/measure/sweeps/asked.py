"""The questions that several tasks ask, in batches, and what many voices' answers to them are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.experiments.parts import Answer, check_tasks, continuation, scored
from rwkvlab.measure.sweeps.mixture import Heard, rows_at_once
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

CERTAIN = 2.0**-53  # what is taken for 1 - p where p is 1 in float64
KINDS = ("exact", "last word", "choice")  # of tasks that have a right answer


def listed_tasks(tasks: Task | Sequence[Task]) -> list[Task]:
    """Return the tasks of a sweep; raises ArgError for what is none, or has no right answers."""
    listed = check_tasks(tasks)
    for task in listed:
        if task.kind not in KINDS:
            kinds = ", ".join(KINDS)
            raise ArgError(f"task {show(task.name)}: need one with right answers ({kinds}), got {show(task.kind)}")
    return listed


class Ask(NamedTuple):
    """One example: the question, and as they are scored the right answer, what it is set against, and its choices.

    others: None is everything else, none at all that the example has no log-odds.
    """

    question: str
    own: Answer
    others: list[Answer] | None
    choices: list[Answer]


def asks_of(model: Model, tasks: list[Task]) -> list[list[Ask]]:
    """Return the examples of each task, set against their other choices, or what the other tasks want, or all else."""
    return [_asks(model, task, tasks) for task in tasks]


def _asks(model: Model, task: Task, tasks: list[Task]) -> list[Ask]:
    form, rivals = get_template(task.template), _rivals(task, tasks)
    against = [list(dict.fromkeys(example.choices)) or rivals.get(example.prompt, []) for example in task]
    shared = 2 * sum(map(bool, against)) >= len(task)
    asks = []
    for example, texts in zip(task, against, strict=True):
        own = continuation(form, example.answer)
        others = [text for text in texts if shared and continuation(form, text) != own]
        known = dict(zip((example.answer, *others), scored(model, form, (example.answer, *others)), strict=True))
        choices = [known.get(text, known[example.answer]) for text in example.choices]
        asks.append(Ask(example.prompt, known[example.answer], [known[t] for t in others] if shared else None, choices))
    return asks


def questions_of(tasks: list[Task], asks: list[list[Ask]]) -> dict[Template, dict[str, list[Answer]]]:
    """Return, by template, every question with all the answers that are scored."""
    asked: dict[Template, dict[str, dict[Answer, None]]] = {}
    for task, examples in zip(tasks, asks, strict=True):
        questions = asked.setdefault(get_template(task.template), {})
        for ask in examples:
            questions.setdefault(ask.question, {}).update(dict.fromkeys((ask.own, *(ask.others or ()))))
    return {form: {prompt: list(answers) for prompt, answers in found.items()} for form, found in asked.items()}


def batches(
    model: Model, form: Template, questions: dict[str, list[Answer]], states: int
) -> list[dict[str, list[Answer]]]:
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


def outcomes(
    model: Model,
    task: Task,
    asks: list[Ask],
    asked: dict[str, list[Answer]],
    found: dict[tuple[Template, str], list[Heard]],
) -> np.ndarray:
    """Return right (0 or 1), log-odds, KL and log-probability [4,P,N] of the P points and N examples of a task.

    asked holds the questions of its template as they were asked. Log-odds are nan where an example has none.
    """
    form = get_template(task.template)
    said, columns = [], []
    for example, ask in zip(task, asks, strict=True):
        heard, answers = found[form, ask.question], asked[ask.question]
        logprob, kl = (np.concatenate([getattr(one, name) for one in heard]) for name in ("logprob", "kl"))  # [P,n]
        own = logprob[:, (at := answers.index(ask.own))]
        others = None if ask.others is None else logprob[:, [answers.index(one) for one in ask.others]]
        columns.append(np.stack([_odds(own, others), kl[:, at], own]))  # [3,P]
        if task.kind == "choice":
            sizes = [
                _size(model, continuation(form, text), one, task.normalise)
                for text, one in zip(example.choices, ask.choices, strict=True)
            ]
            values = logprob[:, [answers.index(one) for one in ask.choices]] / sizes
            said.append([example.choices[pick] for pick in values.argmax(axis=1)])
        else:
            said.append([text for one in heard for text in one.said])
    right = [task.grade(list(texts)) for texts in zip(*said, strict=True)]  # [P,N]
    return np.concatenate([np.asarray(right, dtype=float)[None], np.stack(columns, axis=2)])


def _rivals(task: Task, tasks: list[Task]) -> dict[str, list[str]]:
    """Return what the other tasks in the same template want to each prompt, each once."""
    rivals: dict[str, dict[str, None]] = {}
    for other in tasks:
        if other is not task and get_template(other.template) == get_template(task.template):
            for prompt, answer in zip(other.prompts, other.answers, strict=True):
                rivals.setdefault(prompt, {})[answer] = None
    return {prompt: list(answers) for prompt, answers in rivals.items()}


def _odds(own: np.ndarray, against: np.ndarray | None) -> np.ndarray:
    """Return the log-odds [P] of log-probabilities own [P] against [P,n] together; None is against all else."""
    if against is None:
        return own - np.log(-np.expm1(np.minimum(own, -CERTAIN)))
    if not against.shape[1]:
        return np.full(len(own), np.nan)
    return own - np.logaddexp.reduce(against, axis=1)


def _size(model: Model, text: str, scored: Answer, normalise: str) -> int:
    if normalise == "token":
        return len(model.encode(text) if isinstance(scored, str) else scored)
    return 1 if normalise == "none" else len(text.encode())
