"""Later: of many jobs asked for, the last runs in a thread, quietly: for what follows a choice and can wait."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Later:
    """One thread, which ends when there is nothing to do; jobs that never began are dropped.

    `start(job)` runs `job(cancel)` in place of what waits and tells what runs to stop: it sets its `cancel`, an Event.
    In the page nothing is said of it, so that asking costs nothing; a job shows what it raises by itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: Callable[[threading.Event], object] | None = None
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, job: Callable[[threading.Event], object]) -> None:
        """Run a job in place of the one under way; returns at once."""
        with self._lock:
            self._next = job
            self._cancel.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._go, name="rwkvlab-later", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Let the job under way end, and drop what waits; returns at once."""
        with self._lock:
            self._next = None
            self._cancel.set()

    def wait(self, timeout: float) -> bool:
        """Wait until nothing runs, at most `timeout` seconds; returns whether nothing does."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _go(self) -> None:
        while True:
            with self._lock:
                job, self._next = self._next, None
                self._cancel = cancel = threading.Event()
                if job is None:
                    self._thread = None
                    return
            job(cancel)
