"""Plots of a state as it moves: its way through the text in two components, and which token wrote what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry, piece_label, words
from rwkvlab.plots.style import LINES, SEQUENTIAL, axes_of, colour_bar, extend_of, ink, legend, limit_of, palette
from rwkvlab.plots.tables import check_table, series, unit
from rwkvlab.shapes import check_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = {
    "share": "share of the final state (all tokens and the start: 1)",
    "norm": "norm of the write as it stands at the end (state units)",
}


def plot_trajectory(data: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the way of a state along each text: first against second principal component, a ring where it starts and a
    square where it ends.

    data: rows with columns token, pc1 and pc2 (state units), and text where there are several, such as `trajectory`
    returns; its attrs["explained"] (shares of the variance) go to the axes. Raises ArgError for missing columns.
    """
    columns = ("token", "pc1", "pc2")
    table = check_table("plot_trajectory", data, columns, columns)
    parts = series(data.reset_index(drop=True), "text")
    ax = axes_of(ax)
    for at, (name, part) in enumerate(parts):
        rows = table.loc[part.index].sort_values("token", kind="stable")
        rows = rows[np.isfinite(rows[["pc1", "pc2"]]).all(axis=1)]
        colour, style = palette(ax)[at % len(palette(ax))], LINES[at % len(LINES)]
        x, y = rows["pc1"].to_numpy(), rows["pc2"].to_numpy()
        ax.plot(x, y, color=colour, linestyle=style, linewidth=1.4, label=entry(name) if name else None)
        ax.plot(x, y, ".", color=colour, markersize=3)
        ax.plot(x[:1], y[:1], "o", color=colour, markersize=8, markerfacecolor="none", markeredgewidth=1.6)
        ax.plot(x[-1:], y[-1:], "s", color=colour, markersize=7)
        middle = len(x) // 2
        if len(x) > 1:
            here, before = ((x[at], y[at]) for at in (middle, middle - 1))
            ax.annotate("", here, before, arrowprops={"arrowstyle": "-|>", "color": colour, "mutation_scale": 16})
    explained = list(data.attrs.get("explained", ()))
    for number, name in enumerate(("x", "y")):
        share = (
            f", {100 * explained[number]:.0f} % of the variance"
            if len(explained) > number and np.isfinite(explained[number])
            else ""
        )
        getattr(ax, f"set_{name}label")(f"component {number + 1} (state units{share})")
    ax.set_title("ring: start, square: end", fontsize="medium")
    ax.grid(alpha=0.3)
    legend(ax, title="text")
    return ax


def plot_writes(data: pd.DataFrame, value: str = "share", ax: Axes | None = None, *, top: int = 20) -> Axes:
    """Draw which tokens wrote the state of a head: one bar a token, the largest above, surprise in colours.

    data: rows in order with columns token (its index; below 0: the initial state), piece and value ("share" or "norm"),
    such as `writes` returns; with a column surprise (nats) the bars are coloured by it, hatched where it is unknown.
    top: rows drawn, from the first. Raises ArgError for missing columns.
    """
    from matplotlib import colormaps

    check_range("top", top, 1, 10**6, whole=True)
    table = check_table("plot_writes", data, ("token", "piece", value), ("token", value, "surprise"))
    rows = table.head(top)
    widths = rows[value].where(np.isfinite(rows[value]))
    ax = axes_of(ax)
    bars = ax.barh(np.arange(len(rows)), widths, color=palette(ax)[0], edgecolor=ink(ax), linewidth=0.5)
    if "surprise" in rows.columns and np.isfinite(rows["surprise"]).any():
        colours, high = colormaps[SEQUENTIAL], limit_of(rows["surprise"])
        for bar, surprise in zip(bars, rows["surprise"], strict=True):
            known = np.isfinite(surprise)
            bar.set(facecolor=colours(surprise / high) if known else "none", hatch="" if known else "///")
        _scale(ax, high, rows["surprise"])
    names = [_named(token, piece) for token, piece in zip(rows["token"], rows["piece"], strict=True)]
    ax.set_yticks(np.arange(len(rows)), names, **words())
    ax.invert_yaxis()
    ax.axvline(0, color=ink(ax), linewidth=0.8)
    ax.set_xlabel(BARS[value] if value in BARS else unit(value), **words())
    ax.set_ylabel("token (place in the text, piece)")
    if len(rows) < len(table):
        ax.set_title(f"the first {len(rows)} of {len(table)}", fontsize="medium")
    return ax


def _named(token: float, piece: object) -> str:
    if not token >= 0:
        return "initial state"
    return f"{token:.0f} {piece_label(piece)}"


def _scale(ax: Axes, high: float, values: pd.Series) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = values[np.isfinite(values)]
    text = "surprise (nats)" + ("" if len(known) == len(values) else "\nhatched: not known")
    colour_bar(ax, ScalarMappable(Normalize(0.0, high), SEQUENTIAL), text, extend_of(known, 0.0, high))
