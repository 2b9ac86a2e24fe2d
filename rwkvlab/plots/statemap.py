"""Plot of a map of states: one point a state, by name, in two components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry, words
from rwkvlab.plots.style import MARKERS, axes_of, ink, legend, palette, root_of
from rwkvlab.plots.tables import check_table, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 40  # points that get their names
LINE = 10.0  # points from one name to the next


def plot_map(data: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw states as points with their names, first against second component, on one scale.

    data: rows with columns state, pc1 and pc2 (state units), such as `state_map` returns; its attrs["explained"]
    (shares of the variance) go to the axes. With a column group, such as the task of each state, groups get colours and
    marks of their own, and a legend. Of more than 40 states none is named. Raises ArgError for missing columns.
    """
    table = check_table("plot_map", data, ("state", "pc1", "pc2"), ("pc1", "pc2"))
    ax = axes_of(ax)
    parts = series(data.reset_index(drop=True), "group")
    for at, (name, part) in enumerate(parts):
        rows = table.loc[part.index]
        colour, mark = palette(ax)[at % len(palette(ax))], MARKERS[at % len(MARKERS)]
        said = entry(name) if name else None
        ax.plot(rows["pc1"], rows["pc2"], mark, color=colour, markersize=7, linestyle="", label=said)
    shown = table[np.isfinite(table[["pc1", "pc2"]].to_numpy()).all(axis=1)]
    explained = list(data.attrs.get("explained", ()))
    for number, name in enumerate(("x", "y")):
        known = len(explained) > number and np.isfinite(explained[number])
        share = f", {100 * explained[number]:.0f} % of the variance" if known else ""
        getattr(ax, f"set_{name}label")(f"component {number + 1} (state units{share})")
    if len(shown) > NAMED:
        ax.set_title(f"{len(shown)} states", fontsize="medium")
    ax.set_aspect("equal", adjustable="datalim")  # distances are what a map is for
    ax.margins(0.12)
    ax.grid(alpha=0.3)
    if len(shown) <= NAMED:
        _name(ax, shown)
    legend(ax)
    return ax


def _name(ax: Axes, rows: pd.DataFrame) -> None:
    """Write the names beside their points, to the middle of the map, moved up or down so that none covers another."""
    if not len(rows):
        return
    ax.apply_aspect()
    (low, high), tall = ax.get_ylim(), ax.bbox.height * 72 / root_of(ax).dpi  # points
    across = np.sort(rows["pc1"].to_numpy())
    widest = int(np.diff(across, append=across[-1]).argmax())  # names fill the widest gap from both sides
    for left in (False, True):
        side = rows[(rows["pc1"] > across[widest]) == left].sort_values("pc2", kind="stable")
        heights = (side["pc2"].to_numpy() - low) / (high - low) * tall
        moves = _spread(heights, min(LINE, tall / max(1, len(side)))) - heights
        for name, x, y, move in zip(side["state"], side["pc1"], side["pc2"], moves, strict=True):
            line = {"arrowstyle": "-", "color": ink(ax), "linewidth": 0.5, "alpha": 0.5, "relpos": (float(left), 0.5)}
            ax.annotate(
                entry(name, 32), (x, y), xytext=(-14 if left else 14, move), textcoords="offset points", va="center",
                ha="right" if left else "left", fontsize="x-small", color=ink(ax), arrowprops=line, **words(),
            )  # fmt: skip


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Return the heights, in rising order, nearest to the given ones of which none is closer to the next than `gap`.

    Isotonic regression by pooling neighbours (Ayer et al. 1955) of the heights less gap, 2 gap, ….
    """
    pools: list[tuple[float, int]] = []
    for at, height in enumerate(heights):
        mean, count = float(height) - at * gap, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return np.array(flat) + gap * np.arange(len(flat))
