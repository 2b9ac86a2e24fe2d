"""start_tuning: a run of tuning in a thread of its own, which a notebook watches, stops and waits for."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from inspect import signature
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import UnfinishedError, show
from rwkvlab.model.examples import parts_of
from rwkvlab.model.interrupt import held_interrupt
from rwkvlab.model.tuning.options import Options
from rwkvlab.model.tuning.session import Session
from rwkvlab.model.tuning.step import TuneStep
from rwkvlab.model.tuning.tune import tune
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

LOOK = 0.05  # seconds between two looks for Ctrl-C while waiting
QUESTIONS = 4
LEAVE = 20.0  # seconds that a program which ends gives a run to end its step


class TuningJob:
    """A run of `tune` in a thread; made by `start_tuning`.

    steps: the TuneSteps so far. best: the best state so far. done: whether it has ended, in whatever way. error: what
    ended it, None where it went well. memory: the bytes that it was expected to need. questions: a few of the held-out
    examples (of those trained on, where none are held out) as the ids of a prompt and of its answer, to ask meanwhile.
    In a notebook its repr says how far it is.
    """

    def __init__(self, session: Session, on_step: Callable[[TuneStep], object] | None, cancel: threading.Event) -> None:
        self.error: BaseException | None = None
        self._trace: TracebackType | None = None
        self.memory = session.memory
        self.questions = [parts_of(row) for row in (session.apart or session.rows)[:QUESTIONS]]
        self._session: Session | None = session
        self._steps: list[TuneStep] = []
        self._state: State | None = None
        self._total, self._cancel = session.options.steps, cancel
        self._thread = threading.Thread(target=self._go, args=(session, on_step), name="tuning", daemon=True)
        atexit.register(self._leave)
        self._thread.start()

    @property
    def steps(self) -> list[TuneStep]:
        """What is known after each step so far."""
        return list(self._steps)

    @property
    def best(self) -> State | None:
        """What `wait` would return if the run ended here, and where it failed the best before; None until a step."""
        session = self._session
        return self._state if session is None or self.done else session.best()

    @property
    def done(self) -> bool:
        """Whether the run has ended: finished, stopped or failed."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Let the run end after the step in hand; `wait` then returns the best state. Returns at once."""
        self._cancel.set()

    def wait(self, timeout: float | None = None) -> State:
        """Wait until the run has ended and return its state, as `tune` does; Ctrl-C stops the run.

        timeout in seconds (None: as long as it takes); UnfinishedError where the run goes on longer. Raises what ended
        the run where it failed.
        """
        until = (
            None if timeout is None else time.monotonic() + check_range("timeout", timeout, 0, threading.TIMEOUT_MAX)
        )
        with held_interrupt() as interrupted:
            while not self.done and (until is None or time.monotonic() < until):
                left = LOOK if until is None else until - time.monotonic()
                self._thread.join(max(0.0, min(LOOK, left)))
                if interrupted.is_set():
                    self.stop()
        if not self.done:
            raise UnfinishedError(f"tune: goes on after {timeout} s ({self!r}); wait longer, or stop() it")
        if self.error is not None:
            raise self.error.with_traceback(self._trace)  # or else each call would add to it
        assert self._state is not None
        return self._state

    def _go(self, session: Session, on_step: Callable[[TuneStep], object] | None) -> None:
        def seen(step: TuneStep) -> None:
            self._steps.append(step)
            if on_step is not None:
                on_step(step)

        try:
            self._state = session.go(seen, self._cancel)
        except BaseException as error:
            self.error, self._trace = error, error.__traceback__
            state = getattr(error, "state", None)
            self._state = state if isinstance(state, State) else None
        finally:
            self._session = None  # its optimizer and its examples are large
            atexit.unregister(self._leave)

    def _leave(self) -> None:
        """What is done where the program ends before the run: the step in hand is the last."""
        self._cancel.set()
        self._thread.join(LEAVE)

    def __repr__(self) -> str:
        last = str(self._steps[-1]) if self._steps else f"step 0 of {self._total}"
        how = "running" if not self._cancel.is_set() else "stopping"
        if self.done:
            how = "stopped" if self._cancel.is_set() else "done"
        if self.error is not None:
            how = f"failed: {show(self.error, 300)[1:-1]}"
        return f"<TuningJob {how}: {last}>"


def start_tuning(model: Model, examples: Iterable[Any], **options: Any) -> TuningJob:
    """Begin what `tune(model, examples, **options)` does, in a thread, and return at once.

    The options are those of `tune`, on_step (called in that thread) and cancel included, and so is the result, bit by
    bit: `start_tuning(…).wait()`. What `tune` would refuse is raised here, before the thread starts; answers that a
    teacher is to write are written before, too. Where the program ends first, the run ends after the step in hand; with
    checkpoint= the same call then goes on from there.
    """
    given = signature(tune).bind(model, examples, **options)
    given.apply_defaults()
    found = given.arguments
    settings = Options(**{field.name: found[field.name] for field in fields(Options)})
    cancel = found["cancel"] or threading.Event()
    session = Session(model, examples, found["init"], found["held_out"], settings, cancel)
    return TuningJob(session, found["on_step"], cancel)
