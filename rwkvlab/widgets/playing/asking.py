"""Asking: one question to all columns at the same time, each going on from its own conversation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from rwkvlab.errors import Cancelled, show
from rwkvlab.measure.comparing.compare import assemble
from rwkvlab.measure.comparing.comparison import Comparison
from rwkvlab.model.answering import overlap
from rwkvlab.model.chat import Conversation, ask_together, template_notes
from rwkvlab.model.engine import Model
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template, get_template
from rwkvlab.widgets.base.work import EVERY, Report

STOPPED = ("cancelled", "interrupted")


@dataclass(frozen=True)
class Settings:
    """What is asked, and how; columns are names, the first is the baseline."""

    question: str
    columns: tuple[str, ...]
    template: str | Template
    seed: int
    sampling: Mapping[str, Any]
    kl: bool
    chat: bool


@dataclass(frozen=True, eq=False)
class Turn:
    """One question that was answered.

    notes: a line for each column, or "": what was special about it. came: for each column, which column of the turn
    before it goes on from; None where it has read another's history, or there is none. about: what a person should know
    about the template.
    """

    settings: Settings
    result: Comparison
    notes: tuple[str, ...]
    came: tuple[int | None, ...]
    talks: tuple[Conversation, ...] = field(repr=False)
    about: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before all columns were ready."""
        return not set(STOPPED).isdisjoint(self.result.table["finish"])


class Live:
    """Takes pieces of text as they come, and shows all columns at most every EVERY seconds."""

    def __init__(self, columns: int, draw: Callable[[tuple[str, ...]], object], tell: Callable[[int], object]) -> None:
        self.texts, self._pieces, self._draw, self._tell = [""] * columns, [0] * columns, draw, tell
        self._next = 0.0

    def __call__(self, row: int, piece: str) -> None:
        """Add a piece to a column."""
        self.texts[row] += piece
        self._pieces[row] += 1
        start = time.monotonic()
        if start >= self._next:
            self._draw(tuple(self.texts))
            self._tell(max(self._pieces))
            # long answers are drawn less often, so that drawing takes a fifth of the time at most
            end = time.monotonic()
            self._next = end + max(EVERY, 4 * (end - start))


def ask_columns(
    model: Model,
    arms: Mapping[str, State | None],
    settings: Settings,
    last: Turn | None,
    report: Report,
    draw: Callable[[tuple[str, ...]], object],
) -> Turn:
    """Ask all columns in one batch and return what they wrote; with `last`, each goes on from there.

    draw(texts) shows what there is so far. A Stop keeps what was written; before anything was, it raises Cancelled, as
    the reading of a history does. Raises what `Model.chat` raises; nothing of `last` is changed.
    """
    starts = list(arms.values())
    form = settings.template
    if form == "auto":
        form = next((state.card.template for state in starts if state is not None and state.card.template), "world")
    form = get_template(form)
    form.format(settings.question)  # what cannot be asked is refused before a history is read
    talks, notes, came = _go_on(model, form, arms, last, report)
    before = [talk.state for talk in talks] if last else starts
    if last:  # the separator belongs to the history, so that every column reads the same question
        before = [_separated(model, talk) for talk in talks]
    most = settings.sampling["max_tokens"]

    def tell(tokens: int) -> None:
        with suppress(Cancelled):  # a Stop reaches the loop that writes by itself, which keeps what there is
            report(min(tokens, most), max(1, most), f"writing, {tokens} of at most {most} tokens")

    live = Live(len(talks), draw, tell)
    sampling = dict(settings.sampling, seed=[settings.seed] * len(talks))
    out = ask_together(talks, settings.question, on_text=live, cancel=report.cancel, **sampling)
    if not any(one.tokens for one in out) and any(one.finish in STOPPED for one in out):
        raise Cancelled("stopped before the first word")
    given = {name: value for name, value in settings.sampling.items() if value or name not in ("ban", "stop")}
    answers = [(settings.question, name, 0, one) for name, one in zip(arms, out, strict=True)]
    known = dict(zip(arms, before, strict=True))
    result = assemble(model, form, known, answers, {"seed": settings.seed, "n": 1, **given})
    about = "; ".join(template_notes(form, starts))
    return Turn(settings, result, tuple(notes), tuple(came), tuple(talks), about)


def _go_on(
    model: Model, form: Template, arms: Mapping[str, State | None], last: Turn | None, report: Report
) -> tuple[list[Conversation], list[str], list[int | None]]:
    """Return a conversation for each column: its own, or one that has been read again from another initial state.

    A column whose state was changed keeps its turns; one that was added reads the baseline's.
    """
    talks, notes, came = [], [], list[int | None]()
    had = last.settings.columns if last else ()
    for at, (name, state) in enumerate(arms.items()):
        talk, note, source = Conversation(model, _unlabelled(state), template=form), "", None
        if last and name in had:
            source = had.index(name)
            talk = copy(last.talks[source])
        elif last:
            own = at < len(had) and had[at] not in arms
            source = at if own else None
            talk = copy(last.talks[at if own else 0])
            report(at, len(arms), f"reading the conversation again from {show(name, 40)}")
            talk.switch(_unlabelled(state), cancel=report.cancel)
            whose = f"switched from {show(had[at], 40)}" if own else f"added, with the turns of {show(had[0], 40)}"
            note = f"{whose}: the conversation was read again"
        talk.template = form
        talks.append(talk)
        notes.append(note)
        came.append(source)
    return talks, notes, came


def _unlabelled(state: State | None) -> State | None:
    """Return a state that no template is known of: in a thread nobody hears the warning."""
    return None if state is None else state.replace(card=state.card.replace(template=""))


def _separated(model: Model, talk: Conversation) -> State:
    """Return the state of a conversation after the separator that stands in front of its next question."""
    separator = talk.template.separator
    text = model.tokenizer.decode(talk.turns[-1].tokens) if talk.turns else separator
    gap = separator[overlap(text, separator) :]
    return model.read(gap, talk.state) if gap else talk.state


def switches(turns: Sequence[Turn], columns: Sequence[str]) -> str:
    """Say which columns will go on from another initial state, "" where none does."""
    if not turns:
        return ""
    new = [f"column {at}: {show(name)}" for at, name in enumerate(columns, 1) if name not in turns[-1].settings.columns]
    count = f"the {len(turns)} question{'' if len(turns) == 1 else 's'} of this chat"
    return f"{', '.join(new)}: reads {count} again, and answers the next one from there" if new else ""
