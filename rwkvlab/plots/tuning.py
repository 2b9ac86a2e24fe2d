"""Plot of a run of tuning: the loss of every batch and that of the held-out examples, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError
from rwkvlab.plots.style import axes_of, legend, palette
from rwkvlab.plots.tables import check_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("step", "loss", "held_out")


def plot_tuning(steps: pd.DataFrame | Sequence[Any], ax: Axes | None = None) -> Axes:
    """Draw the loss of the batch of each step, and of the held-out examples where it was measured, in nats a token.

    steps: rows with columns step, loss and held_out (may be missing, or nan where nothing was measured), or a list of
    what has these attributes, such as `TuningJob.steps`. Where all losses are positive the scale is logarithmic. A ring
    is around the lowest held-out loss: there is the state that is kept. Raises ArgError for missing columns, no rows.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if not isinstance(steps, pd.DataFrame) and isinstance(steps, Sequence) and not isinstance(steps, str):
        rows = [[getattr(step, column, None) for column in COLUMNS] for step in steps]
        if any(row[0] is None or row[1] is None for row in rows):
            raise ArgError("plot_tuning: need a DataFrame or TuneSteps, got a list of something else")
        steps = pd.DataFrame(rows, columns=list(COLUMNS))
    table = check_table("plot_tuning", steps, COLUMNS[:2], COLUMNS).sort_values("step", kind="stable")
    table = table.where(np.isfinite(table))
    ax = axes_of(ax)
    batch, apart = palette(ax)[:2]
    ax.plot(table["step"], table["loss"], color=batch, linewidth=1.2, label="the batch of each step")
    if len(held := table.dropna(subset=["held_out"]) if "held_out" in table.columns else table[:0]):
        ax.plot(held["step"], held["held_out"], "o-", color=apart, linewidth=2, markersize=4, label="what is held out")
        best = held.iloc[int(held["held_out"].to_numpy().argmin())]
        ax.plot(
            *best[["step", "held_out"]], "o", markersize=11, markerfacecolor="none", markeredgecolor=apart,
            markeredgewidth=1.8, linestyle="", clip_on=False, label="the lowest: what is kept",
        )  # fmt: skip
    values = table[[column for column in COLUMNS[1:] if column in table.columns]].to_numpy(dtype=float)
    seen = values[np.isfinite(values)]
    if seen.size and (seen > 0).all():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, at: f"{value:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats a token)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    legend(ax)
    return ax
