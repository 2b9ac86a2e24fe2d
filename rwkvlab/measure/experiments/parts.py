"""The parts of an experiment: batches of questions from several states, what is done with one, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import ArgError, Cancelled, show
from rwkvlab.model.chat import chat_batch
from rwkvlab.model.score import score
from rwkvlab.model.vocab import END_OF_TEXT
from rwkvlab.shapes import check_items
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 256  # (state, prompt) pairs answered at once, fewer where states are large
BYTES = 2**30  # of states in one batch
CHARACTERS = 2**18  # of prompts and answers in one batch, each counted once a state; but one question at least
STOPPED = "experiment: interrupted"

Answer = str | tuple[int, ...]  # as it is scored: a text behind the template's lead, or tokens as they are


@dataclass(frozen=True)
class Part:
    """Some questions in one template, the answers that are scored after each, and the states they start from.

    answers are those of `scored`. max_tokens is the length of what is written, 0 where nothing is.
    """

    template: Template
    questions: tuple[str, ...]
    answers: tuple[tuple[Answer, ...], ...]
    names: tuple[str, ...]
    states: tuple[State | None, ...]
    max_tokens: int

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(state's name, question) of every row, in the order of the results."""
        return [(name, question) for name in self.names for question in self.questions]


@dataclass(frozen=True)
class Answered:
    """What came of a part, one entry a row: what was written, or None, and the answers' log-probabilities (natural)."""

    said: tuple[str | None, ...]
    logprobs: tuple[tuple[float, ...], ...]


def check_tasks(tasks: Task | Sequence[Task]) -> list[Task]:
    """Return the tasks as a list; ArgError for none, for what is no Task, and for two of one name.

    Tables tell tasks apart by their names alone: two of one name would be counted as one.
    """
    listed = [tasks] if isinstance(tasks, Task) else check_items("tasks", tasks)
    names: set[str] = set()
    for task in listed:
        if not isinstance(task, Task):
            raise ArgError(f"tasks: need a Task or a list of them, got {show(type(task).__name__)}")
        if task.name in names:
            raise ArgError(f"tasks: two are called {show(task.name)}; give load_task(…, name=…) or Task(name=…)")
        names.add(task.name)
    if not listed:
        raise ArgError("tasks: empty; give at least one Task")
    return listed


def continuation(template: Template, answer: str) -> str:
    """Return an answer as it is scored: as it stands behind the prompt, without what ends it."""
    return template.lead + template.tidy(answer)


def scored(model: Model, template: Template, answers: Sequence[str]) -> list[Answer]:
    """Return answers that are set against each other, as they are scored: as they are, or as `apart` gives them."""
    found = apart(model, [continuation(template, text) for text in answers], template.separator)
    return [*answers] if found is None else [*found]


def apart(model: Model, written: Sequence[str], end: str) -> list[tuple[int, ...]] | None:
    """Return the tokens of answers, all with their end, if those of one begin those of another; None if not.

    Without its end the shorter one would be the more probable one from every state: its probability holds the other's.
    `end` is what stands behind an answer; where that is nothing, or is not enough, it is the end of text.
    """
    texts = sorted(set(written))
    if not any(two.startswith(one) for one, two in pairwise(texts)) or not _begins(map(model.encode, texts)):
        return None
    ids = [tuple(model.encode(text + end)) for text in written]
    return [(*one, END_OF_TEXT) for one in ids] if _begins(ids) else ids


def _begins(answers: Iterable[Sequence[int]]) -> bool:
    """Whether one of these is where another begins: in order, the next one would be such."""
    return any(two[: len(one)] == one for one, two in pairwise(sorted(set(map(tuple, answers)))))


def cut(
    model: Model, arms: Mapping[str, State | None], tasks: Sequence[Task], lengths: Sequence[int], rows: int
) -> list[Part]:
    """Cut the work into batches of `rows` rows at most; a question that several tasks ask is answered once.

    lengths: for each task how many tokens are written, 0 for none. The parts depend on nothing else.
    """
    dims = model.dims
    rows = max(1, min(rows, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)))
    asked: dict[tuple[Template, int], dict[str, dict[Answer, None]]] = {}
    for task, length in zip(tasks, lengths, strict=True):
        form = get_template(task.template)
        questions = asked.setdefault((form, length), {})
        for example in task:
            wanted = questions.setdefault(example.prompt, {})
            own = [example.answer] if example.answer else []
            wanted.update(dict.fromkeys(scored(model, form, example.choices) or own))
    parts = []
    listed = list(arms.items())
    for (form, length), questions in asked.items():
        ordered = sorted(questions, key=len)  # rows of equal length are read together
        for first in range(0, len(listed), rows):
            names, states = zip(*listed[first : first + rows], strict=True)
            width, room = max(1, rows // len(names)), CHARACTERS // len(names)
            pieces = [
                (question, piece)
                for question in ordered
                for piece in _pieces(list(questions[question]), len(questions[question]) if length else 1, room)
            ]
            for block in _pieces(pieces, 1, room, width):
                asks, answers = zip(*block, strict=True)
                parts.append(Part(form, asks, tuple(map(tuple, answers)), names, states, length))
    return parts


def _pieces(items: list[Any], least: int, room: int, most: int = 2**63) -> list[list[Any]]:
    """Cut answers, or (question, answers) pairs, into runs of `room` characters and `most` items at most.

    A run has `least` items, whatever their size; no items are one empty run.
    """
    runs: list[list[Any]] = [[]]
    left = room
    for item in items:
        pair = isinstance(item, tuple) and isinstance(item[0], str)
        size = len(item[0]) + sum(map(len, item[1])) if pair else len(item)
        if len(runs[-1]) == most or (len(runs[-1]) >= least and size > left):
            runs.append([])
            left = room
        runs[-1].append(item)
        left -= size
    return runs


def _in_template(form: Template, state: State | None) -> State | None:
    """Return a state whose card names the template asked in: that another is meant is said once, where a run begins."""
    if state is None or state.card.template in ("", form.name):
        return state
    return state.replace(card=state.card.replace(template=form.name))


def answer(model: Model, part: Part) -> Answered:
    """Return what is written from each state to each question, greedily, and the log-probabilities of the answers."""
    form, count = part.template, len(part.questions)
    said: list[str | None] = [None] * (count * len(part.states))
    if part.max_tokens:
        written = chat_batch(
            model,
            [question for _ in part.states for question in part.questions],
            [state for state in map(partial(_in_template, form), part.states) for _ in part.questions],
            template=form, max_tokens=part.max_tokens, temperature=0.0, top_p=1.0, presence=0.0, frequency=0.0, seed=0,
        )  # fmt: skip
        if any(one.finish in ("interrupted", "cancelled") for one in written):
            raise Cancelled(STOPPED)
        said = [one.text for one in written]
    asked = [at for at, answers in enumerate(part.answers) if answers]
    logprobs: list[tuple[float, ...]] = [()] * len(said)
    if asked:
        prompts = [form.format(part.questions[at]) for at in asked]
        wanted = [
            [continuation(form, one) if isinstance(one, str) else list(one) for one in part.answers[at]] for at in asked
        ]
        found = iter(score(model, prompts, wanted, part.states)["logprob"].tolist())
        for row in (state * count + at for state in range(len(part.states)) for at in asked):
            logprobs[row] = tuple(next(found) for _ in part.answers[row % count])
    return Answered(tuple(said), tuple(logprobs))
