"""Plots of spectra: the singular values of every head, one thin line each, and the middle one thick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from rwkvlab.plots.fonts import entry, words
from rwkvlab.plots.lines import lines_of
from rwkvlab.plots.style import LINES, axes_of, dark, integer_ticks, legend, palette
from rwkvlab.plots.tables import check_table, check_wide, series, unit

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

    check_table("plot_spectrum", data, ("index", "layer", "head", value))
    names = [(name, check_wide("plot_spectrum", part, "index", value)) for name, part in series(data, "state")]
    ax = axes_of(ax)
    log = value != "energy"
    drawn = False
    for at, (name, part) in enumerate(names):
        wide = part.where(part > 0) if log else part
        colour = palette(ax)[at % len(palette(ax))]
        alpha = max(0.03, min(0.5, 20 / wide.shape[1]))
        ax.add_collection(LineCollection(list(lines_of(wide)), colors=colour, linewidths=0.7, alpha=alpha))
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
    ax.set_ylabel(unit(value), **words())
    if not drawn:
        ax.set_title("all singular values are zero")
    integer_ticks(ax, "x")
    ax.grid(alpha=0.3)
    legend(ax, title="one thin line a head")
    return ax
