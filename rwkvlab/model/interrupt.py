"""Stopping in good order: Ctrl-C waits for the end of a step, so that no state is left half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_interrupt() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; a second one raises KeyboardInterrupt as usual.

    Only in the main thread, and only where Python's own handler is in place; otherwise nothing is changed.
    """
    seen = threading.Event()

    def note(number: int, frame: object) -> None:
        if seen.is_set():
            raise KeyboardInterrupt
        seen.set()

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_reason(cancel: threading.Event | None, interrupted: threading.Event) -> str:
    """Return "cancelled", "interrupted", or "" to go on."""
    if cancel is not None and cancel.is_set():
        return "cancelled"
    return "interrupted" if interrupted.is_set() else ""
