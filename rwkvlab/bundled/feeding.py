"""Training batches drawn ahead of time by worker processes, in the order of the steps whatever their number."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from queue import Empty, Full
from typing import Any, NamedTuple

import numpy as np
import torch

from rwkvlab.bundled.micro_data import Batch
from rwkvlab.errors import WorkerError, show

AHEAD = 4  # steps that a worker draws ahead
WAIT = 5.0  # seconds after which the other side is looked at

# the batches of a step, from 0: one a kind of document
Draw = Callable[[int], Sequence[Batch]]


class Kind(NamedTuple):
    """A kind of document, its share of the positions of a step, and the positions of a row."""

    name: str
    share: float
    length: int


# Documents fill half of a row of functions, four tenths of one of the world, and all of one of text: of the tokens
# that are read these are about 23, 44 and 33 %. No document of the world is longer than its row.
KINDS = (Kind("functions", 0.25, 48), Kind("world", 0.57, 112), Kind("text", 0.18, 512))


def rows_of(tokens: int) -> dict[str, int]:
    """Return how many rows of each kind make a step of about `tokens` positions: many, then multiples of eight."""
    rows = {kind.name: tokens * kind.share / kind.length for kind in KINDS}
    return {name: max(1, round(count / 8) * 8 if count > 16 else round(count)) for name, count in rows.items()}


class Feed:
    """`draw(0)`, `draw(1)`, … one after the other, drawn by `workers` processes; by this one where that is 0.

    The workers are forked at once, where the system can: make it before the first call to CUDA.
    """

    def __init__(self, draw: Draw, workers: int) -> None:
        self._draw, self._next = draw, 0
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        self._queues = [context.Queue(AHEAD) for _ in range(workers)]
        self._workers = [
            context.Process(target=_work, args=(draw, queue, first, workers), daemon=True)
            for first, queue in enumerate(self._queues)
        ]
        for worker in self._workers:
            worker.start()

    def take(self) -> list[Batch]:
        """Return the batches of the next step. Raises WorkerError where its worker ended or could not draw them."""
        step, self._next = self._next, self._next + 1
        if not self._workers:
            return list(self._draw(step))
        number = step % len(self._workers)
        while True:
            try:
                got = self._queues[number].get(timeout=WAIT)
                break
            except Empty:
                if not self._workers[number].is_alive():
                    raise WorkerError(f"the worker that draws step {step} ended; look at what it printed") from None
        if isinstance(got, str):
            raise WorkerError(f"the batches of step {step} could not be drawn: {got}")
        return [_unpacked(arrays) for arrays in got]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()


def _work(draw: Draw, queue: Any, first: int, stride: int) -> None:
    """Draw every `stride`-th step, for ever, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    torch.set_num_threads(1)
    parent, step = multiprocessing.parent_process(), first
    while True:
        try:
            item: Any = [_packed(batch) for batch in draw(step)]
        except Exception as error:
            item = show(f"{type(error).__name__}: {error}", 300)
        while True:
            try:
                queue.put(item, timeout=WAIT)
                break
            except Full:
                if parent is not None and not parent.is_alive():
                    return
        if isinstance(item, str):
            return
        step += stride


def _packed(batch: Batch) -> tuple[np.ndarray, ...]:
    """Small arrays: tensors would travel through files, of which a process may open only so many."""
    tokens, targets, weights = (x.numpy() for x in batch)
    return tokens.astype(np.uint16), targets.astype(np.uint16), weights.astype(np.float32)


def _unpacked(arrays: Sequence[np.ndarray]) -> Batch:
    tokens, targets, weights = arrays
    ids = [torch.from_numpy(x.astype(np.int32)) for x in (tokens, targets)]
    return Batch(ids[0], ids[1], torch.from_numpy(weights))
