"""Controlled experiments: each task from its own state, from zero, and from states that should not help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.arms import ZERO
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

WRONG, RANDOM, TURNED = CONTROLS = ("another task's, the best", "random, same spectrum", "transposed")


def controlled(model: Model, states: Mapping[str, State], tasks: Sequence[Task], *, seed: int = 0) -> pd.DataFrame:
    """Answer every task from zero, from every state, and from three controls of the task's own state.

    states: by the name of the task that each belongs to; two at least. Returns the rows of `Experiment`. Behind those
    of "zero" and of the states stand, under the names in CONTROLS, for each task: the best of the other tasks' states
    once more (by accuracy, or by log-probability where the task is of texts); a random state with the singular values
    of the task's own (seeded); its own state with each head transposed. Raises ArgError for a task without a state,
    StateOpError for heads that are not square.
    """
    missing = [task.name for task in tasks if task.name not in states]
    if ZERO in states:
        raise ArgError(f"states: {ZERO!r} is the name of the start from zeros; name the state of this task otherwise")
    if missing or len(states) < 2:
        raise ArgError(f"states: need one for each task and two at least; none for {show(', '.join(missing))}")
    rows = Experiment(model, {ZERO: None, **states}, tasks).run()
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in CONTROLS}
    for task in tasks:
        own = states[task.name]
        others = rows[(rows["task"] == task.name) & ~rows["state"].isin([ZERO, task.name])]
        best = others.groupby("state", sort=False)["logprob" if task.kind == "text" else "right"].mean().idxmax()
        parts[WRONG].append(others[others["state"] == best].assign(state=WRONG))
        made = Experiment(model, {RANDOM: random_like(own, seed), TURNED: transposed(own)}, task).run()
        for name in (RANDOM, TURNED):
            parts[name].append(made[made["state"] == name])
    return pd.concat([rows, *(part for listed in parts.values() for part in listed)], ignore_index=True)


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the share of right answers, states down and tasks across, in the order of the rows.

    Tasks of texts, in which nothing is right or wrong, are left out.
    """
    graded = rows[rows["right"].notna()].astype({"right": float})
    grid = graded.pivot_table(index="state", columns="task", values="right")
    return grid.loc[graded["state"].unique(), graded["task"].unique()]


def lifts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what each state adds to the zero state's accuracy: columns state, task, lift, the largest first."""
    grid = accuracies(rows)
    grid = grid.drop(index=ZERO) - grid.loc[ZERO]
    long = grid.melt(ignore_index=False, var_name="task", value_name="lift").reset_index()
    return long.sort_values("lift", ascending=False, kind="stable", ignore_index=True)
