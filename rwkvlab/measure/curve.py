"""Sweep: what a model answers on the way from one initial state to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.experiment import Experiment
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.blend import lerp
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def sweep(
    model: Model,
    tasks: Task | Sequence[Task],
    a: State | None,
    b: State | None,
    ts: Iterable[float],
    *,
    how: Callable[[State, State, float], State] = lerp,
) -> pd.DataFrame:
    """Answer the tasks from `how(a, b, t)` for every t in ts; None is the zero state.

    Returns one row a (t, task): t, task, examples (how many), accuracy (share of whole answers that are right) and
    logprob (mean natural log-probability of the right answer). All blends of a prompt run in one batch. Raises ArgError
    for a t that is no number; `how` raises for what it cannot blend.
    """
    steps = [float(check_range("ts", _number(t), -1e6, 1e6)) for t in check_items("ts", ts)]
    if not steps:
        raise ArgError("ts: empty; give at least one number, such as [0, 0.5, 1]")
    start, end = (model.zero() if state is None else state for state in (a, b))
    blends = {f"{at}": how(start, end, t) for at, t in enumerate(steps)}
    rows = Experiment(model, blends, tasks).run()
    rows["t"] = [steps[int(name)] for name in rows["state"]]
    rows["step"] = rows["state"].astype(int)
    table = rows.groupby(["step", "task"], sort=False, as_index=False).agg(
        t=("t", "first"), examples=("right", "size"), accuracy=("right", "mean"), logprob=("logprob", "mean")
    )
    ordered = table.sort_values("step", kind="stable", ignore_index=True)
    return ordered[["t", "task", "examples", "accuracy", "logprob"]]


def _number(t: object) -> float:
    try:
        return float(t) if not isinstance(t, (str, bool)) else t  # type: ignore[arg-type, return-value]
    except (TypeError, ValueError):
        raise ArgError(f"ts: need numbers, got {show(t)}") from None
