"""Plots of what came out: a number for every task and state, and a state beside what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.fonts import entry, words
from rwkvlab.plots.heads import plot_heads
from rwkvlab.plots.style import SEQUENTIAL, axes_of, colour_bar, ink_on
from rwkvlab.plots.tables import check_table, unit
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
    _write(ax, image, grid.to_numpy())
    return ax


def plot_matrix(
    data: pd.DataFrame, row: str, column: str, value: str, ax: Axes | None = None, *, best: str = "", digits: int = 2
) -> Axes:
    """Draw one number a cell, each written in its cell: `row` down and `column` across, in the order of the table.

    data: rows with those three columns, one a cell, such as bits per byte by text and state. best: "low" or "high"
    frames the lowest or the highest number of each row. digits: how many stand behind the point. Raises ArgError
    for missing columns, and where a cell has several rows.
    """
    from matplotlib.patches import Rectangle

    table = check_table("plot_matrix", data, (row, column, value), (value,))
    if best not in ("", "low", "high"):
        raise ArgError(f"best: need 'low', 'high' or '', got {show(best)}")
    if (twice := table.duplicated([row, column])).any():
        first = table[twice].iloc[0]
        raise ArgError(f"plot_matrix: several rows for {show(first[row])}, {show(first[column])}; give one a cell")
    grid = table.set_index([row, column])[value].unstack().reindex(table[row].unique())[table[column].unique()]
    numbers = grid.to_numpy(dtype=float)
    ax = axes_of(ax)
    image = ax.imshow(numbers, cmap=SEQUENTIAL, aspect="auto", interpolation="nearest")
    colour_bar(ax, image, unit(value))
    ax.set_xticks(range(grid.shape[1]), [entry(name) for name in grid.columns], rotation=30, ha="right", **words())
    ax.set_yticks(range(grid.shape[0]), [entry(name) for name in grid.index], **words())
    ax.set_xlabel(column, **words())
    ax.set_ylabel(row, **words())
    _write(ax, image, numbers, digits)
    for at, cells in enumerate(numbers):
        if best and np.isfinite(cells).any():
            chosen = int((np.nanargmin if best == "low" else np.nanargmax)(cells))
            ax.add_patch(Rectangle((chosen - 0.46, at - 0.46), 0.92, 0.92, fill=False, edgecolor="red", linewidth=2))
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


def _write(ax: Axes, image: Any, numbers: np.ndarray, digits: int = 2) -> None:
    """Write each number in its cell."""
    for (row, column), number in np.ndenumerate(numbers):
        if np.isfinite(number):
            colour = ink_on(image.cmap(image.norm(number)))
            ax.text(column, row, f"{number:.{digits}f}", ha="center", va="center", color=colour, fontsize="small")


def _grid(data: pd.DataFrame) -> pd.DataFrame:
    names = data.columns if isinstance(data, pd.DataFrame) else ()
    value = next((column for column in ("right", "accuracy") if column in names), "right")
    table = check_table("plot_accuracy", data, ("state", "task", value), (value,))
    grid = table.groupby(["state", "task"], sort=False, dropna=False, observed=True)[value].mean().unstack()
    return grid.reindex(index=table["state"].unique(), columns=table["task"].unique())
