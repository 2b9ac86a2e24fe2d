"""Plots of where an effect lives: set by set of heads against random sets, and layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError
from rwkvlab.plots.fonts import entry, words
from rwkvlab.plots.lines import uncover
from rwkvlab.plots.style import LINES, MARKERS, axes_of, ink, integer_ticks, legend, palette
from rwkvlab.plots.tables import check_table, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 12  # heads named in the plot; the table has them all


def plot_set(data: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the effect of the smallest set of heads against its size, beside random sets of the same size.

    data: rows with columns size, layer, head (the one added), effect, random, random_low and random_high (nats), such
    as `smallest_set` returns. The first twelve heads are named; with share, a dotted line is the whole way from base
    to donor. Raises ArgError for missing columns.
    """
    columns = ("size", "effect", "random")
    more = ("layer", "head", "random_low", "random_high", "share")
    table = check_table("plot_set", data, columns, (*columns, *more)).sort_values("size", kind="stable")
    ax = axes_of(ax)
    main, other = palette(ax)[:2]
    ax.plot(table["size"], table["effect"], color=main, marker="o", linewidth=2.2, label="chosen one by one")
    ax.plot(table["size"], table["random"], color=other, marker="s", ls="--", lw=1.2, ms=4, label="random sets, mean")
    if {"random_low", "random_high"} <= set(table.columns):
        low, high = table["random_low"], table["random_high"]
        ax.fill_between(table["size"], low, high, color=other, alpha=0.2, lw=0, label="random sets, 95 % of them")
    last = table.iloc[-1]
    if "share" in table.columns and np.isfinite(last["share"]) and abs(last["share"]) > 1e-3:
        whole = last["effect"] / last["share"]
        ax.axhline(whole, color=ink(ax), linestyle=":", linewidth=1.2, label="the whole state")
    if {"layer", "head"} <= set(table.columns):
        named = table[np.isfinite(table["layer"]) & np.isfinite(table["head"])].head(NAMED)
        for number, row in enumerate(named.itertuples()):
            place = (row.size, row.effect)
            said = f"L{row.layer:.0f} H{row.head:.0f}"
            below = number % 2
            ax.annotate(said, place, xytext=(4, -11 if below else 5), textcoords="offset points", fontsize="small")
    ax.set_xlabel("heads in the set")
    ax.set_ylabel(unit("effect"))
    integer_ticks(ax, "x")
    ax.margins(x=0.08, y=0.1)
    ax.grid(alpha=0.3)
    legend(ax)
    uncover(ax)
    return ax


def plot_layers(data: pd.DataFrame, value: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw one number a layer, or a part of the state, with its interval.

    data: rows with a column layer or part, or both (one line a part), and `value` (None: the first number), such as
    `patch_map(…, per="layer")` or `norms(…, per="layer")` return; columns low and high are the interval of effect,
    X_low and X_high that of another X. Raises ArgError for missing columns.
    """
    names = list(data.columns) if isinstance(data, pd.DataFrame) else []
    across = "layer" if "layer" in names or "part" not in names else "part"
    if value is None:
        numbers = list(data.select_dtypes("number").columns) if names else []
        value = next((column for column in numbers if column != "layer"), "value")
    ends = ("low", "high") if value == "effect" else (f"{value}_low", f"{value}_high")
    by = [column for column in ("state", "part") if column in names and column != across]
    plain = ("layer", value, *ends) if across == "layer" else (value, *ends)
    table = check_table("plot_layers", data, [across, value, *by], plain)
    if table.duplicated([across, *by]).any():
        raise ArgError(f"plot_layers: several rows for one {across}; plot_heads draws one number a head")
    ax = axes_of(ax)
    groups: list[tuple[Any, pd.DataFrame]] = list(table.groupby(by, sort=False, dropna=False)) if by else [("", table)]
    for at, (key, part) in enumerate(groups):
        colour = palette(ax)[at % len(palette(ax))]
        place = part[across] if across == "layer" else np.arange(len(part))
        said = entry(", ".join(map(str, key))) if by else None
        line: Any = {
            "marker": MARKERS[at % len(MARKERS)],
            "linestyle": LINES[at % len(LINES)] if across == "layer" else "",
        }
        ax.plot(place, part[value], color=colour, label=said, **line)
        if set(ends) <= set(part.columns):
            ax.vlines(place, part[ends[0]], part[ends[1]], color=colour, linewidth=1.5)
    if across == "part":
        ax.set_xticks(range(len(table)), [entry(part) for part in table["part"]], **words())
        ax.margins(x=0.2)
    else:
        integer_ticks(ax, "x")
    ax.axhline(0, color=ink(ax), linewidth=0.8, alpha=0.6)
    ax.set_xlabel("layer" if across == "layer" else "part of the state")
    ax.set_ylabel(unit(value), **words())
    ax.grid(alpha=0.3)
    legend(ax, title=", ".join(by))
    return ax
