"""Answers to a few questions while a state is tuned: from the state so far, beside those without a state."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from rwkvlab.errors import show
from rwkvlab.measure.comparing.grid import html_grid, html_text
from rwkvlab.model.engine import Model
from rwkvlab.model.generate import generate_batch
from rwkvlab.model.tuning import TuneStep, TuningJob
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import get_template

QUESTIONS = 2
TOKENS = 40  # of an answer
TIMES = 8  # in a run
SHARE = 0.05  # of the time that a run takes, at most
LONG = 600  # characters that are shown of a text


class Sample(NamedTuple):
    """A question, the answer without a state, the one from the state so far, and the one that is wanted."""

    question: str
    without: str
    now: str
    wanted: str


class Samples:
    """What a run's on_step is: now and then it asks the model, in the run's own thread, so that nothing runs beside it.

    `samples` are the newest answers, after `step` steps. They take at most a twentieth of the time, and what goes wrong
    with them stands in their place: it never ends the run.
    """

    def __init__(self, model: Model, template: str, cancel: threading.Event) -> None:
        self.model, self.cancel = model, cancel
        self.stop = get_template(template).stop if template else ()
        self.samples: tuple[Sample, ...] = ()
        self.step, self.apart = 0, False
        self._job: TuningJob | None = None
        self._begun = threading.Event()
        self._questions: list[tuple[list[int], list[int]]] = []
        self._without: list[str] = []
        self._next = self._took = self._asked = 0.0

    def begin(self, job: TuningJob, apart: bool) -> None:
        """Name the run, whose first step waits for this; apart: whether its questions are held out."""
        self._job, self.apart = job, apart
        self._questions = sorted(job.questions, key=lambda pair: len(pair[0]))[:QUESTIONS]
        self._begun.set()

    def __call__(self, step: TuneStep) -> None:
        """Ask after a step, if it is time to."""
        self._begun.wait()
        assert self._job is not None
        rest = time.monotonic() - self._asked
        if step.step < self._next or rest * SHARE < self._took or self.cancel.is_set() or step.step == step.steps:
            return
        self._next = step.step + max(1, step.steps // TIMES)
        self.ask(self._job.best, step.step)

    def ask(self, state: State | None, step: int) -> None:
        """Ask now, from a state."""
        begin = time.monotonic()
        try:
            if not self._without:
                self._without = self._answers(None)
            now = self._answers(state)
        except Exception as error:  # whatever it is, a run goes on
            now = [f"({show(error, LONG)[1:-1]})"] * len(self._questions)
        self._asked = time.monotonic()
        self._took = self._asked - begin
        if self.cancel.is_set():
            return
        without = self._without or [""] * len(now)
        decode = self.model.tokenizer.decode
        self.samples = tuple(
            Sample(decode(asked), before, after, decode(told))
            for (asked, told), before, after in zip(self._questions, without, now, strict=True)
        )
        self.step = step

    def _answers(self, state: State | None) -> list[str]:
        prompts = [asked for asked, _ in self._questions]
        found = generate_batch(
            self.model, prompts, [state] * len(prompts), temperature=0, presence=0, frequency=0, max_tokens=TOKENS,
            stop=self.stop, cancel=self.cancel,
        )  # fmt: skip
        return [said.text + ("…" if said.finish == "length" else "") for said in found]

    def to_html(self) -> str:
        """Return the answers as a table; all text from outside is escaped."""
        if not self.samples:
            return ""
        rows = [
            (_cut(sample.question), [html_text(_cut(text)) for text in (sample.without, sample.now, sample.wanted)])
            for sample in self.samples
        ]
        after = f"from the state after {self.step} step{'' if self.step == 1 else 's'}"
        kind = "held out: the state was not tuned on them" if self.apart else "among those that it is tuned on"
        return html_grid(["without a state", after, "wanted"], rows, f"questions {kind}; greedy answers")


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONG else f"{text[:LONG]}…"
