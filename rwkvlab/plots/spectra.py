"""Plots of spectra: the singular values of every head, one thin line each, and the middle one thick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry
from rwkvlab.plots.style import LINES, axes_of, dark, integer_ticks, legend, palette
from rwkvlab.plots.tables import check_table, series, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_spectrum(data: pd.DataFrame, value: str = "value", ax: Axes | None = None) -> Axes:
    """Draw the singular values of every head by their index, and their median over heads; states in colours.

    data: rows with columns layer, head, index (from 1) and value, such as `singular_values` returns; value is "value"
    (state units, on a log scale: zeros are left out) or "energy" (cumulative share, 0 to 1). Raises ArgError for
    missing columns.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    numbers = ("layer", "head", "index", value)
    table = check_table("plot_spectrum", data, numbers, numbers)
    names = series(data.reset_index(drop=True), "state")
    ax = axes_of(ax)
    log = value != "energy"
    drawn = False
    for at, (name, part) in enumerate(names):
        rows = table.loc[part.index]
        rows = rows.assign(**{value: rows[value].where(np.isfinite(rows[value]) & ((rows[value] > 0) | (not log)))})
        colour = palette(ax)[at % len(palette(ax))]
        wide = rows.pivot_table(index="index", columns=["layer", "head"], values=value, dropna=False)
        heads = [np.column_stack((wide.index, wide.iloc[:, head])) for head in range(wide.shape[1])]
        alpha = max(0.03, min(0.5, 20 / len(heads)))
        ax.add_collection(LineCollection(heads, colors=colour, linewidths=0.7, alpha=alpha))
        middle = wide.median(axis=1)
        style = LINES[at % len(LINES)]
        said = f"{entry(name)}: median" if name else "median of the heads"
        (line,) = ax.plot(middle.index, middle, color=colour, linestyle=style, linewidth=2.2, label=said)
        line.set_path_effects([withStroke(linewidth=4.5, foreground="black" if dark(ax) else "white", alpha=0.8)])
        drawn = drawn or bool(middle.notna().any())
    ax.autoscale_view()
    if log and drawn:
        ax.set_yscale("log")
    ax.set_xlabel("index of the singular value (1: the largest)")
    ax.set_ylabel(unit(value))
    if not drawn:
        ax.set_title("all singular values are zero")
    integer_ticks(ax, "x")
    ax.grid(alpha=0.3)
    legend(ax, title="one thin line a head")
    return ax
