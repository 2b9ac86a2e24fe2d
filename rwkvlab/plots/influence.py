"""Plot of influence: what is left of a mounted state in every head, beside what it still does to the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from rwkvlab.plots.fonts import words
from rwkvlab.plots.lines import draw_along, draw_heads, uncover
from rwkvlab.plots.style import ink, legend
from rwkvlab.plots.tables import unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECADES = 1e6  # from the top of a log scale to its bottom, at most
LEFT = {
    "share": "what is left of the state (share of its norm)",
    "norm": "norm of what is left (state units)",
    "readout": "read out of what is left\n(share of the whole read-out)",
}


def plot_influence(
    direct: Any,
    total: pd.DataFrame | None = None,
    *,
    value: str = "share",
    log: bool = False,
    window: int | None = None,
) -> Figure:
    """Draw the direct influence of a state per head beside its total effect, token by token; returns the figure.

    direct: rows with columns token, layer, head and `value` ("share", "norm" or "readout"); total: rows with columns
    token, start and kl (nats, to the zero start), one line a start: mean over `window` tokens (None: a fortieth of the
    text), raw points faint. What `influence` returns can be given alone. log: both on a log scale, where zeros are left
    out. Raises ArgError for missing columns.
    """
    from rwkvlab.plots.panels import Panels

    if total is None:
        direct, total = getattr(direct, "direct", direct), getattr(direct, "total", None)
    figure = Panels(figsize=(11.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_heads(left, "plot_influence: direct", direct, value, median=True)
    if value == "share":
        left.axhline(0.5, color=ink(left), linewidth=1.0, linestyle=":")
        left.annotate("half", (0.99, 0.5), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=ink(left))
    left.set_ylabel(LEFT[value] if value in LEFT else unit(value), **words())
    left.set_title("direct: the inputs of every layer held fixed")
    draw_along(right, "plot_influence: total", total, "kl", window)
    right.set_ylabel("KL to the zero start (nats)")
    right.set_title("total: the text read again from each start")
    legend(right, title="start")
    for ax in (left, right):
        top = ax.get_ylim()[1]
        if log:
            ax.set_yscale("log", nonpositive="mask")
            ax.set_ylim(max(ax.get_ylim()[0], top / DECADES), 2 * top)
        else:
            ax.set_ylim(bottom=0)
    uncover(left)
    return figure
