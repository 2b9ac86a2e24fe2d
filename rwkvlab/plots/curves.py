"""Plots of curves: what the model answers on the way from one state to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.style import COLOURS, MARKERS, axes_of, families, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {
    "accuracy": "accuracy (share of answers right)",
    "logprob": "log-probability of the answer (nats)",
}


def plot_curve(data: pd.DataFrame, value: str = "accuracy", ax: Axes | None = None) -> Axes:
    """Draw `value` against t, one line a task.

    data: rows with columns t, task and value, such as `sweep` returns; value is "accuracy" or "logprob" (or another
    column). Raises ArgError for missing columns.
    """
    missing = [column for column in ("t", "task", value) if column not in data.columns]
    if missing:
        raise ArgError(f"plot_curve: need columns t, task and {show(value)}; {show(missing[0])} is not among them")
    ax = axes_of(ax)
    for at, (task, part) in enumerate(data.groupby("task", sort=False)):
        ordered = part.sort_values("t")
        colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
        ax.plot(ordered["t"], ordered[value], color=colour, marker=marker, markersize=4, label=label(task))
    ax.set_xlabel("t (0: first state, 1: second state)")
    ax.set_ylabel(UNITS.get(value, label(value)))
    if value == "accuracy":
        ax.set_ylim(-0.03, 1.03)
    ax.grid(alpha=0.3)
    ax.legend(title="task", prop={"family": list(families())})
    return ax
