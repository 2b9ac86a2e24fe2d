"""The picture of a mixture: the norm of every head as a map, and beside it that of every layer of all that went in."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from rwkvlab.measure.spectrum import norms
from rwkvlab.plots import plot_heads
from rwkvlab.plots.fonts import label
from rwkvlab.plots.style import COLOURS, LINES, integer_ticks, legend, limit_of
from rwkvlab.states.state import State
from rwkvlab.widgets.base.pictures import INK, for_both_themes

MOST = 6  # states that are drawn beside the mixture
LETTERS = 36  # of a name in the legend


def mixture_figure(mixed: State, parts: Mapping[str, State]) -> Figure:
    """Return a figure of a mixture and its parts, unknown to pyplot; the colours stay while the weights change."""
    figure = Figure(figsize=(8.4, 2.9))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
    # no layout engine: it would take as long as the drawing, at every move of a slider
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.17, top=0.9, wspace=0.24)
    heads = norms(dict(parts) | {"\0": mixed})  # one table of them all: each state is read once
    own = heads["state"] == "\0"
    limit = limit_of(heads.loc[~own, "norm"] if parts else heads["norm"])
    plot_heads(heads[own].drop(columns="state"), "norm", ax=left, limit=limit)
    left.set_title("the mixture, head by head", fontsize="medium")
    layers = norms(dict(parts) | {"\0": mixed}, per="layer")
    for at, name in enumerate(list(parts)[:MOST]):
        table, look = layers[layers["state"] == name], LINES[1 + at % 6]
        right.plot(table["layer"], table["norm"], ls=look, color=COLOURS[at % 4], lw=1.3, label=label(name)[:LETTERS])
    table = layers[layers["state"] == "\0"]
    right.plot(table["layer"], table["norm"], color=INK, lw=2.5, marker="o", ms=3, label="the mixture")
    right.set(xlabel="layer", ylabel="norm (state units)", ylim=(0, None))
    right.set_title("layer by layer", fontsize="medium")
    integer_ticks(right, "x")
    legend(right, fontsize="x-small", loc="lower left")
    return for_both_themes(figure)
