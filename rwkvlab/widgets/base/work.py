"""Work: one job at a time in a thread, with progress, the time that is left, and a Stop that a click reaches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import Cancelled
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.later import Later

EVERY = 0.05  # seconds between two words on how far a job is

Job = Callable[["Report"], object]


class Report:
    """What a running job is given: `report(done, total, text)` shows how far it is, and raises Cancelled at a Stop.

    cancel is the threading.Event that `Model.generate` and others take; a job that passes it on need not ask.
    """

    def __init__(self, cancel: threading.Event, show: Callable[[float, str], None]) -> None:
        self.cancel = cancel
        self._show, self._start, self._last = show, time.monotonic(), 0.0

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """Say that `done` of `total` is done; raises Cancelled where the job is to stop."""
        self.check()
        now = time.monotonic()
        if now - self._last < EVERY and done < total:
            return
        self._last = now
        share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        words = [text] if text else []
        words.append(f"{share:.0%}")
        if 0 < share < 1 and now - self._start > 1:
            words.append(f"{seconds((now - self._start) * (1 - share) / share)} left")
        self._show(share, " · ".join(words))

    def part(self, at: float, of: float, text: str = "") -> Callable[[float, float], None]:
        """Return what the part `at` (from 0) of `of` parts is to call with what it has done, and of how much."""
        return lambda done, total: self(at + done / total, of, text)

    def check(self) -> None:
        """Raise Cancelled where the job is to stop."""
        if self.cancel.is_set():
            raise Cancelled("stopped")


def seconds(time_left: float) -> str:
    """Return a duration as people say it: "8 s", "3 min", "2 h"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if time_left >= 2 * size:
            return f"{time_left / size:.0f} {unit}"
    return f"{time_left:.0f} s"


class Work(ipywidgets.HBox):
    """A Stop button, a bar and a caption over one thread: of many jobs asked for at once, the last is what runs.

    `start(job)` stops the job under way, if there is one, and runs `job(report)` in its place; however often it is
    called, there is one thread, and jobs that never began are dropped. `running` tells whether one runs; `error` is
    what the last one raised, None where it went well or was stopped. An error is shown in the caption, and the next
    job starts as ever.
    """

    running = traitlets.Bool(False, help="Whether a job runs.")
    error = traitlets.Instance(BaseException, allow_none=True, help="What ended the last job, if it failed.")

    def __init__(self, **options: Any) -> None:
        self._later = Later(self._settle)
        self._stop = ipywidgets.Button(description="Stop", icon="stop", tooltip="stop what is running", disabled=True)
        self._stop.add_class("rwkvlab-stop")
        self._bar = ipywidgets.FloatProgress(0.0, min=0.0, max=1.0)
        for part, width in ((self._stop, "auto"), (self._bar, "200px")):
            part.layout.width, part.layout.flex = width, "0 0 auto"  # not squeezed by a long caption
        self._bar.layout.display = "none"
        self.caption = Caption()
        super().__init__([self._stop, self._bar, self.caption], **options)
        self.add_class("rwkvlab-work")
        self._stop.on_click(lambda _: self.stop())

    def start(self, job: Job, title: str = "working") -> None:
        """Run `job(report)` in the thread, in place of what runs or waits; returns at once.

        What the job returns is ignored, but a text is shown as the caption when it is done.
        """
        self._later.start(lambda cancel: self._run(job, title, Report(cancel, self._show)))

    def stop(self) -> None:
        """Let the job under way end, and drop what waits; returns at once."""
        self._later.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, at most `timeout` seconds; returns whether nothing does."""
        return self._later.wait(timeout)

    def close(self) -> None:
        """Stop what runs, and take the widget away."""
        self.stop()
        super().close()

    def _run(self, job: Job, title: str, report: Report) -> None:
        self.error, self.running, self._stop.disabled = None, True, False
        self._bar.layout.display = None
        self._show(0.0, title)
        try:
            said = job(report)
            self.caption.say(said if isinstance(said, str) else "stopped" if report.cancel.is_set() else "done")
        except Cancelled:
            self.caption.say("stopped")
        except BaseException as error:  # a thread has no one above it who could be told
            self.error = error
            self.caption.say(error, trouble=True)

    def _settle(self) -> None:
        self.running, self._stop.disabled = False, True
        self._bar.layout.display = "none"

    def _show(self, share: float, text: str) -> None:
        self._bar.value = share
        self.caption.say(text)
