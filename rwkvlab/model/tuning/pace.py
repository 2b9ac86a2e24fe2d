"""The pace of a run of tuning: tokens a second, and the time that the steps and measurements to come will take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Counts from the second step on, since the first one loads and compiles; while there is but one, that one.

    tokens: those that were trained on meanwhile, to be added to.
    """

    def __init__(self) -> None:
        self.tokens, self._steps = 0, 0
        self._since = time.perf_counter()
        self._apart = self._last = 0.0  # seconds of measurements: of all meanwhile, and of the last

    def step(self, done: int) -> None:
        """Say that a step begins, after so many."""
        if done <= 1:
            self.tokens, self._steps, self._apart, self._since = 0, 0, 0.0, time.perf_counter()
        self._steps += 1

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Keep what is done inside apart from the steps."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._last = time.perf_counter() - begun
            self._apart += self._last

    def told(self, steps: int, measurements: int) -> tuple[float, float]:
        """Return the tokens a second, and the seconds that so many steps and measurements to come will take."""
        took = max(time.perf_counter() - self._since - self._apart, 1e-9)
        return self.tokens / took, took / max(1, self._steps) * steps + self._last * measurements
