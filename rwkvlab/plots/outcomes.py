"""Plots of what came out: accuracy of every task from every state, and a state beside what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry, words
from rwkvlab.plots.heads import plot_heads
from rwkvlab.plots.style import SEQUENTIAL, axes_of, colour_bar, ink_on
from rwkvlab.plots.tables import check_table
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
    ax.set_xticks(range(grid.shape[1]), [entry(name) for name in grid.columns], rotation=30, ha="right", **words())
    ax.set_yticks(range(grid.shape[0]), [entry(name) for name in grid.index], **words())
    ax.set_xlabel("task")
    ax.set_ylabel("initial state")
    for (row, column), number in np.ndenumerate(grid.to_numpy()):
        if np.isfinite(number):
            colour = ink_on(image.cmap(image.norm(number)))
            ax.text(column, row, f"{number:.2f}", ha="center", va="center", color=colour, fontsize="small")
    return ax


def plot_outcomes(state: State, data: pd.DataFrame) -> Figure:
    """Draw the heads of a state beside the accuracies of `plot_accuracy`; returns the figure, unknown to pyplot."""
    from rwkvlab.plots.panels import Panels

    rows, columns = _grid(data).shape
    figure = Panels(figsize=(5.5 + 0.75 * columns, max(3.2, 1.4 + 0.32 * rows)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 2 + 0.6 * columns))
    plot_heads(state, ax=left)
    left.set_title(f"state {left.get_title()}", **words())
    plot_accuracy(data, ax=right)
    right.set_title("what each start answers")
    return figure


def _grid(data: pd.DataFrame) -> pd.DataFrame:
    names = data.columns if isinstance(data, pd.DataFrame) else ()
    value = next((column for column in ("right", "accuracy") if column in names), "right")
    table = check_table("plot_accuracy", data, ("state", "task", value), (value,))
    grid = table.groupby(["state", "task"], sort=False, dropna=False, observed=True)[value].mean().unstack()
    return grid.reindex(index=table["state"].unique(), columns=table["task"].unique())
