"""Running the parts of an experiment: here one by one, or spread by an executor over threads, processes, machines."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import ArgError, Cancelled, RwkvLabError, WorkerError, show
from rwkvlab.measure.experiments.parts import STOPPED, Answered, Part, answer
from rwkvlab.model.recipe import Recipe, recipe_of

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

WAITING = 1024  # parts handed to an executor at once, fewer where their states are large
BYTES = 2**33  # of states in the parts handed to an executor at once; but eight parts at least


class Work:
    """Answers parts; pickled, it is how to open the model, which is then opened where the first part is answered."""

    __name__ = "answer"  # what a cluster calls it

    def __init__(self, model: Model) -> None:
        self._model: Model | Recipe = model

    def __getstate__(self) -> Recipe:
        return self._model if isinstance(self._model, Recipe) else recipe_of(self._model)

    def __setstate__(self, recipe: Recipe) -> None:
        self._model = recipe

    def __call__(self, part: Part) -> Answered:
        """Answer one part."""
        model = self._model.open() if isinstance(self._model, Recipe) else self._model
        return answer(model, part)


def check_executor(executor: Any) -> None:
    """Raise ArgError, saying what to pass, unless `executor` is None or has the `submit` of an Executor."""
    if executor is not None and callable(getattr(executor, "get_executor", None)):
        raise ArgError("executor: this is a client; pass client.get_executor(), which is an Executor")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ArgError(f"executor: need a concurrent.futures.Executor or None, got {show(type(executor).__name__)}")


def run_parts(
    model: Model, parts: Mapping[int, Part], executor: Executor | None = None
) -> Generator[tuple[int, Answered], None, None]:
    """Yield (number, result) of each part as it is done; closed or interrupted, it cancels what has not begun.

    Raises what answering raises; WorkerError for what an executor raises by itself, Cancelled where it was shut down.
    """
    work = Work(model)
    if executor is None:
        for number, part in parts.items():
            yield number, work(part)
        return
    todo = iter(parts.items())
    waiting: dict[Any, int] = {}
    most = _at_once(parts)
    try:
        while True:
            while len(waiting) < most and (following := next(todo, None)) is not None:
                number, part = following
                waiting[executor.submit(work, part)] = number
            if not waiting:
                return
            for future in _done(waiting):
                yield waiting.pop(future), future.result()
    except CancelledError:
        raise Cancelled(STOPPED) from None
    except RwkvLabError:
        raise
    except Exception as error:
        if (ours := _ours(error)) is not None:
            raise ours from error
        raise WorkerError(_explain(error)) from error
    finally:
        for future in waiting:
            with suppress(Exception):
                future.cancel()


def _done(waiting: Mapping[Any, int]) -> list[Any]:
    """Return futures that are done; where they are of a kind that cannot be waited for together, the oldest."""
    if all(isinstance(future, Future) for future in waiting):
        return list(wait(waiting, return_when=FIRST_COMPLETED).done)
    return [next(iter(waiting))]


def _at_once(parts: Mapping[int, Part]) -> int:
    largest = max(
        (sum(4 * s.wkv.numel() for s in part.states if s is not None) for part in parts.values()),
        default=0,
    )
    return max(8, min(WAITING, BYTES // max(1, largest)))


def _ours(error: BaseException) -> RwkvLabError | None:
    """Return the error of ours that an executor wrapped in its own, None if there is none."""
    inner: BaseException | None = error
    for _ in range(10):
        inner = inner and (inner.__cause__ or inner.__context__)
        if isinstance(inner, RwkvLabError):
            return type(inner)(str(inner))
    return None


def _explain(error: Exception) -> str:
    said = show(f"{type(error).__name__}: {error}", 200)
    if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
        return (
            f"experiment: a worker ended ({said}); it may have run out of memory, or the script that starts the pool "
            'has no `if __name__ == "__main__":`; run it again, with fewer workers, or with executor=None to see more'
        )
    return f"experiment: a worker failed ({said}); run it with executor=None to see more"
