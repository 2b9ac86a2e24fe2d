"""Plot of one head: its singular values, and what a text leaves of it; of one state, or of several in colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from rwkvlab.plots.fonts import entry, label, words
from rwkvlab.plots.style import LINES, ink, integer_ticks, legend, palette
from rwkvlab.plots.tables import check_table, series, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROUNDING = 1e-7  # of the largest singular value: smaller ones are fp32's rounding
LIGHT, DARK = "#ffffff", "#111111"  # the page that a figure is drawn for


def plot_one_head(
    values: pd.DataFrame, left: pd.DataFrame | None = None, *, title: str = "", dark: bool = False
) -> Figure:
    """Draw the singular values of a head, and beside them what is left of the head along a text; returns the figure.

    values: rows with columns index (from 1) and value (state units), such as `singular_values` returns for one head,
    drawn on a log scale; what is below 1e-7 of the largest is rounding, and left out. left: rows with columns token and
    share (of the norm), such as `influence(…).direct` has for one head; None: no second panel. Either may have a column
    state: one line each. title: which head it is. dark: for a dark page; the figure itself is clear. Raises ArgError
    for missing columns.
    """
    from rwkvlab.plots.panels import Panels

    check_table("plot_one_head: values", values, ("index", "value"))
    if left is not None:
        check_table("plot_one_head: left", left, ("token", "share"))
    figure = Panels(figsize=(8.6 if left is not None else 4.4, 2.9), layout="constrained")
    figure.patch.set_facecolor(DARK if dark else LIGHT)
    panels = list(figure.subplots(1, 1 if left is None else 2, squeeze=False)[0])
    for ax in panels:
        ax.set_facecolor(DARK if dark else LIGHT)  # before anything is drawn, which looks for legible colours
    drawn = _lines(panels[0], values, "index", "value", "o", log=True)
    said = "singular values" if drawn else "all singular values are zero"
    panels[0].set_title(f"{label(title)}: {said}" if title else said, **words())
    panels[0].set_xlabel("index (1: the largest)")
    panels[0].set_ylabel(unit("value"), **words())
    if left is not None:
        _lines(panels[1], left, "token", "share", "", log=False)
        panels[1].axhline(0.5, color=ink(panels[1]), linewidth=1.0, linestyle=":")
        panels[1].set_ylim(bottom=0)
        panels[1].set_title("how long it lasts: half is the dotted line")
        panels[1].set_xlabel("tokens read")
        panels[1].set_ylabel("what is left\n(share of its norm)", **words())
    for ax in panels:
        _finish(ax)
    legend(panels[0], fontsize="x-small")  # full names of states are long
    for patch in (figure.patch, *(ax.patch for ax in panels)):
        patch.set_alpha(0.0)
    return figure


def _lines(ax: Axes, data: pd.DataFrame, across: str, up: str, marker: str, *, log: bool) -> bool:
    """Draw one line a state; returns whether there is anything to see."""
    drawn = False
    for at, (name, part) in enumerate(series(data, "state")):
        shown: Any = part[up].where(part[up] > ROUNDING * part[up].max()) if log else part[up]
        colour, style = palette(ax)[at % len(palette(ax))], LINES[at % len(LINES)]
        mark: Any = {"marker": marker, "markersize": 2.6} if marker else {}
        ax.plot(
            part[across],
            shown,
            color=colour,
            linestyle=style,
            linewidth=1.7,
            label=entry(name) if name else None,
            **mark,
        )
        drawn = drawn or bool(shown.notna().any())
    if log and drawn:
        ax.set_yscale("log")
    return drawn


def _finish(ax: Axes) -> None:
    """Put all words and lines around the axes into a colour that is read on them."""
    colour = ink(ax)
    integer_ticks(ax, "x")
    ax.grid(alpha=0.15, color=colour)
    ax.tick_params(which="both", colors=colour)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color(colour)
    for spine in ax.spines.values():
        spine.set_color(colour)
        spine.set_alpha(0.4)
