"""Plots of what came out: accuracy of every task from every state, and a state beside what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.heads import plot_heads
from rwkvlab.plots.style import SEQUENTIAL, axes_of, colour_bar, families, label
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_accuracy(data: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the share of right answers (0 to 1), states down and tasks across, each number in its cell.

    data: rows with columns state, task and right (or accuracy), such as `Experiment.run` returns; both orders are
    kept. Raises ArgError for missing columns.
    """
    grid = _grid(data)
    ax = axes_of(ax)
    image = ax.imshow(grid.to_numpy(), cmap=SEQUENTIAL, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    colour_bar(ax, image, "accuracy (share of answers right)")
    fonts: dict[str, Any] = {"fontfamily": list(families())}
    ax.set_xticks(range(grid.shape[1]), [label(name) for name in grid.columns], rotation=30, ha="right", **fonts)
    ax.set_yticks(range(grid.shape[0]), [label(name) for name in grid.index], **fonts)
    ax.set_xlabel("task")
    ax.set_ylabel("initial state")
    for (row, column), number in np.ndenumerate(grid.to_numpy()):
        if np.isfinite(number):
            shade = "white" if number < 0.5 else "black"
            ax.text(column, row, f"{number:.2f}", ha="center", va="center", color=shade, fontsize="small")
    return ax


def plot_outcomes(state: State, data: pd.DataFrame) -> Figure:
    """Draw the heads of a state beside the accuracies of `plot_accuracy`; returns the figure, unknown to pyplot."""
    from matplotlib.figure import Figure

    rows, columns = _grid(data).shape
    figure = Figure(figsize=(5.5 + 0.75 * columns, max(3.2, 1.4 + 0.32 * rows)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 2 + 0.6 * columns))
    plot_heads(state, ax=left)
    left.set_title(f"state {left.get_title()}", fontfamily=list(families()))
    plot_accuracy(data, ax=right)
    right.set_title("what each start answers")
    return figure


def _grid(data: pd.DataFrame) -> pd.DataFrame:
    value = next((column for column in ("right", "accuracy") if column in data.columns), "right")
    missing = [column for column in ("state", "task", value) if column not in data.columns]
    if missing:
        raise ArgError(f"plot_accuracy: need columns state, task and right; {show(missing[0])} is not among them")
    grid = data.assign(**{value: data[value].astype(float)}).pivot_table(index="state", columns="task", values=value)
    return grid.reindex(index=data["state"].unique(), columns=data["task"].unique())
