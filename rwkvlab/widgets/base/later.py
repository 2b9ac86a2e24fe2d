"""Later: of many jobs asked for, the last runs in a thread, quietly; a program that ends waits until it has stopped."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

LOOK = 0.05  # seconds between two looks while waiting, so that an interrupt gets through
LEAVE = 20.0  # seconds that a program which ends gives a job to stop: one that is cut off while it draws aborts it

Quiet = Callable[[threading.Event], object]


class Later:
    """One thread, which ends when there is nothing to do; jobs that never began are dropped.

    `start(job)` runs `job(cancel)` in place of what waits and tells what runs to stop: it sets its `cancel`, an Event.
    In the page nothing is said of it, so that asking costs nothing; a job shows what it raises by itself. `idle()` is
    called in that thread when there is nothing left to do; it may start the next job.
    """

    def __init__(self, idle: Callable[[], object] | None = None) -> None:
        self._line, self._idle = _Line(), idle
        weakref.finalize(self, self._line.leave)

    def start(self, job: Quiet) -> None:
        """Run a job in place of the one under way; returns at once."""
        line = self._line
        with line.lock:
            line.waiting = job
            line.cancel.set()
            if line.thread is None:
                line.thread = threading.Thread(target=self._go, name="rwkvlab-later", daemon=True)
                line.thread.start()

    def stop(self) -> None:
        """Let the job under way end, and drop what waits; returns at once."""
        with self._line.lock:
            self._line.waiting = None
            self._line.cancel.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, at most `timeout` seconds (None: however long); returns whether nothing does."""
        until = None if timeout is None else time.monotonic() + timeout
        while (thread := self._line.thread) is not None and thread is not threading.current_thread():
            left = LOOK if until is None else min(LOOK, until - time.monotonic())
            if left <= 0:
                return False
            thread.join(left)
        return True

    def _go(self) -> None:
        line = self._line
        while True:
            with line.lock:
                job, line.waiting = line.waiting, None
                line.cancel = cancel = threading.Event()
            if job is not None:
                job(cancel)
                continue
            if self._idle is not None:
                self._idle()
            with line.lock:
                if line.waiting is None:
                    line.thread = None
                    return


class _Line:
    """What runs and what waits, apart from its owner, so that the end of the program does not hold that."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: Quiet | None = None
        self.cancel = threading.Event()
        self.thread: threading.Thread | None = None

    def leave(self) -> None:
        """Stop everything, since nobody is left who asked for it; where the program ends, wait for that."""
        with self.lock:
            self.waiting, thread = None, self.thread
            self.cancel.set()
        if thread is not None and not threading.main_thread().is_alive():
            thread.join(LEAVE)
