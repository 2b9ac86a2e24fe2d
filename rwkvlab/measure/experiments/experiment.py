"""Experiment: tasks answered from several initial states, as a tidy table with one row a (state, example)."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from typing import TYPE_CHECKING

import pandas as pd
from tqdm.auto import tqdm

from rwkvlab.errors import Cancelled, show
from rwkvlab.measure.arms import States, name_arms
from rwkvlab.measure.experiments.file import Record
from rwkvlab.measure.experiments.identity import identity
from rwkvlab.measure.experiments.parts import ROWS, STOPPED, Answered, Part, check_tasks, continuation, cut
from rwkvlab.measure.experiments.run import check_executor, run_parts
from rwkvlab.measure.experiments.table import tabulate
from rwkvlab.shapes import check_range
from rwkvlab.states.fits import check_fits
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

SPARE = 4  # tokens that an answer may be longer than the longest right one
SCORED = ("choice", "text")  # kinds for which nothing is written
STYLE_TOKENS = 100  # of an answer whose style is judged


class Experiment:
    """Every task from every state: `Experiment(model, states, tasks).run()`."""

    def __init__(
        self,
        model: Model,
        states: States,
        tasks: Task | Sequence[Task],
        *,
        max_tokens: int | None = None,
        batch: int = ROWS,
    ) -> None:
        """Take the states (a mapping of names, a list, a Shelf; None is zeros) and the tasks.

        max_tokens: where what is written is cut; None: four tokens after the longest right answer, its template's lead
        before it, and 100 where a style is judged. batch: how many (state, prompt) pairs are answered at once, fewer
        where states are large; a smaller one makes more parts to spread and to resume from. Raises ArgError, for two
        tasks of one name too.
        """
        self.model = model
        self.states = name_arms(states, zero_first=False)
        self.tasks = check_tasks(tasks)
        self.batch = int(check_range("batch", batch, 1, 2**31, whole=True))
        if max_tokens is not None:
            max_tokens = int(check_range("max_tokens", max_tokens, 1, 2**31, whole=True))
        self.max_tokens = max_tokens

    def run(self, executor: Executor | None = None, *, resume: str | os.PathLike[str] | None = None) -> pd.DataFrame:
        """Answer everything, greedily; returns one row a (task, state, example), in that order.

        Columns: task, state, example (from 0), prompt, answer (the right one), said (what the model wrote, or the
        choice that it finds most probable), right (see `Task`) and logprob (natural, of the right answer in its
        template, without what ends it, except where the tokens of one choice begin those of another: all these are
        scored with what ends them, as else the longer could never win); kind (of the task), tokens (of what logprob is
        of) and bytes (of the answer as written, in UTF-8), bits_per_byte (-logprob / ln 2 / bytes) and choice (index
        of the choice in said). A missing value (`isna`) stands where a kind has no such thing; right is plain bool
        unless a task of texts is there.

        executor: any `concurrent.futures.Executor` (of Dask: client.get_executor()); None runs here. Another process
        opens the model itself, once, from the file that it came from. The batches are the same anywhere, and so are
        the numbers where device and number of torch threads are. resume: a JSON-lines file, made where it is missing,
        that keeps every part that is done: stopped at any moment, the same call goes on with the rest.

        Raises MismatchError for a state that does not fit, ResumeError where the file is of another run, FormatError
        where it is none, WorkerError where a worker failed, and Cancelled after Ctrl-C.
        """
        check_executor(executor)
        for state in self.states.values():
            if state is not None:
                check_fits(state, self.model)
        self._warn_of_templates()
        lengths = self._lengths()
        parts = cut(self.model, self.states, self.tasks, lengths, self.batch)
        if resume is None:
            results = self._run(parts, executor, None)
        else:
            run = identity(self.model, self.states, self.tasks, parts, max_tokens=self.max_tokens, batch=self.batch)
            with closing(Record(resume, run, parts)) as record:
                results = self._run(parts, executor, record)
        return tabulate(self.model, list(self.states), list(zip(self.tasks, lengths, strict=True)), parts, results)

    def _run(self, parts: list[Part], executor: Executor | None, record: Record | None) -> dict[int, Answered]:
        results = {} if record is None else dict(record.found)
        todo = {number: part for number, part in enumerate(parts) if number not in results}
        bar = tqdm(total=len(parts), initial=len(results), delay=2, desc="answering", unit="part", leave=False)
        try:
            with bar, closing(run_parts(self.model, todo, executor)) as running:
                for number, answered in running:
                    if record is not None:
                        record.add(number, answered)
                    results[number] = answered
                    bar.update()
        except (KeyboardInterrupt, Cancelled):
            kept = "nothing is kept" if record is None else f"what is done is kept in {record.name}"
            raise Cancelled(f"{STOPPED}; {kept}, run it again") from None
        return results

    def _warn_of_templates(self) -> None:
        """Warn once, at the line of the user, of states that were tuned for another template than a task's."""
        forms = {get_template(task.template).name: task.name for task in reversed(self.tasks)}
        pairs = [
            f"{show(name, 40)} for {show(state.card.template, 40)}, task {show(task, 40)} asks in {show(form, 40)}"
            for name, state in self.states.items()
            for form, task in forms.items()
            if state is not None and state.card.template not in ("", form)
        ]
        if pairs:
            more = f" (and {len(pairs) - 1} more such pairs)" if len(pairs) > 1 else ""
            text = f"states were tuned for another template than they are asked in: {pairs[0]}{more}"
            warnings.warn(text, UserWarning, stacklevel=_outside())

    def _lengths(self) -> list[int]:
        """Return for each task how many tokens are written."""
        writing = [task for task in self.tasks if task.kind not in (*SCORED, "style")]
        longest = self.max_tokens
        if longest is None and writing:
            texts = {continuation(get_template(task.template), text) for task in writing for text in task.answers}
            longest = max(len(self.model.encode(text)) for text in texts) + SPARE
        style = self.max_tokens or STYLE_TOKENS
        return [style if t.kind == "style" else 0 if t.kind in SCORED else longest or 0 for t in self.tasks]


def _outside() -> int:
    """Return the stack level, for a warning of the caller's, of the first line that is not of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("rwkvlab."):
        level, frame = level + 1, frame.f_back
    return level
