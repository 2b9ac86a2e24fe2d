"""Experiment: tasks answered from several initial states, as a tidy table with one row a (state, example)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from rwkvlab.errors import ArgError, Cancelled, show
from rwkvlab.measure.arms import States, name_arms
from rwkvlab.model.chat import chat_batch
from rwkvlab.model.score import score
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 256  # (state, prompt) pairs answered at once, fewer where states are large
BYTES = 2**30  # of states in one batch
STOPPED = "experiment: interrupted; nothing is kept, run it again"
SPARE = 4  # tokens that an answer may be longer than the longest right one
COLUMNS = ("task", "state", "example", "prompt", "answer", "said", "right", "logprob")


@dataclass(frozen=True)
class _Part:
    """Some questions in one template, the right answers that are scored after each, and the states they start from."""

    template: Template
    questions: list[str]
    answers: list[list[str]]
    names: list[str]
    states: list[State | None]
    max_tokens: int


class Experiment:
    """Every task from every state: `Experiment(model, states, tasks).run()`."""

    def __init__(
        self, model: Model, states: States, tasks: Task | Sequence[Task], *, max_tokens: int | None = None
    ) -> None:
        """Take the states (a mapping of names, a list, a Shelf; None is zeros) and the tasks.

        max_tokens: where an answer is cut; None: four tokens after the longest right answer. Raises ArgError.
        """
        self.model = model
        self.states = name_arms(states, zero_first=False)
        self.tasks = [tasks] if isinstance(tasks, Task) else check_items("tasks", tasks)
        for task in self.tasks:
            if not isinstance(task, Task):
                raise ArgError(f"tasks: need a Task or a list of them, got {show(type(task).__name__)}")
        if not self.tasks:
            raise ArgError("tasks: empty; give at least one Task")
        if max_tokens is None:
            longest = max(len(model.encode(answer)) for task in self.tasks for answer in task.answers)
            max_tokens = longest + SPARE
        self.max_tokens = int(check_range("max_tokens", max_tokens, 1, 2**31, whole=True))

    def run(self, executor: Executor | None = None) -> pd.DataFrame:
        """Answer everything, greedily; returns one row a (task, state, example), in that order.

        Columns: task, state, example (from 0), prompt, answer (the right one), said (what the model wrote), right
        (whether said is the whole answer, white space around both aside) and logprob (natural, of the right answer in
        its template, without what ends it). executor: a `concurrent.futures.Executor` of threads (a model cannot be
        sent to another process); None runs here. The batches, and so the numbers, are the same either way. Raises
        MismatchError for a state that does not fit, and Cancelled after Ctrl-C.
        """
        parts = self._parts()
        run = partial(_answer, self.model)
        found: dict[tuple[Template, str, str], tuple[str, dict[str, float]]] = {}
        try:
            for answered in map(run, parts) if executor is None else executor.map(run, parts):
                found.update(answered)
        except KeyboardInterrupt:
            raise Cancelled(STOPPED) from None
        rows = []
        for task in self.tasks:
            form = get_template(task.template)
            for name in self.states:
                said = [found[form, name, prompt][0] for prompt in task.prompts]
                graded = zip(task.prompts, task.answers, said, task.grade(said), strict=True)
                for example, (prompt, answer, text, right) in enumerate(graded):
                    logprob = found[form, name, prompt][1][answer]
                    rows.append((task.name, name, example, prompt, answer, text, right, logprob))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _parts(self) -> list[_Part]:
        """Cut the work into batches; a question that several tasks ask is answered once."""
        dims = self.model.dims
        rows = max(1, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)))
        arms = list(self.states.items())
        parts = []
        asked: dict[Template, dict[str, dict[str, None]]] = {}
        for task in self.tasks:
            questions = asked.setdefault(get_template(task.template), {})
            for prompt, answer in zip(task.prompts, task.answers, strict=True):
                questions.setdefault(prompt, {})[answer] = None
        for form, questions in asked.items():
            ordered = sorted(questions, key=len)  # rows of equal length are read together
            for first in range(0, len(arms), rows):
                some = arms[first : first + rows]
                width = max(1, rows // len(some))
                for at in range(0, len(ordered), width):
                    block = ordered[at : at + width]
                    answers = [list(questions[question]) for question in block]
                    names, states = [name for name, _ in some], [state for _, state in some]
                    parts.append(_Part(form, block, answers, names, states, self.max_tokens))
        return parts


def _answer(model: Model, part: _Part) -> dict[tuple[Template, str, str], tuple[str, dict[str, float]]]:
    """Return for each (template, state, question) what was said, and the log-probability of each right answer."""
    form = part.template
    pairs = [(at, question) for at in range(len(part.states)) for question in part.questions]
    written = chat_batch(
        model, [question for _, question in pairs], [part.states[at] for at, _ in pairs], template=form,
        max_tokens=part.max_tokens, temperature=0.0, top_p=1.0, presence=0.0, frequency=0.0, seed=0,
    )  # fmt: skip
    if any(one.finish in ("interrupted", "cancelled") for one in written):
        raise Cancelled(STOPPED)
    prompts = [form.format(question) for question in part.questions]
    answers = [[form.lead + form.tidy(answer) for answer in row] for row in part.answers]
    scored = iter(score(model, prompts, answers, part.states)["logprob"].tolist())
    return {
        (form, part.names[at], question): (one.text, {answer: next(scored) for answer in part.answers[number]})
        for (at, question), one, number in zip(
            pairs, written, list(range(len(part.questions))) * len(part.states), strict=True
        )
    }
