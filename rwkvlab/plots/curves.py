"""Plots of curves: what the model answers on the way from one state to another, and on the ways it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry, label, words
from rwkvlab.plots.style import LINES, MARKERS, axes_of, ink, legend, palette
from rwkvlab.plots.tables import check_table, unit
from rwkvlab.shapes import check_items

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANT = "blend"  # the arm that the others are controls of
WAY = "t (0: first state, 1: second state)"


def plot_curve(data: pd.DataFrame, value: str = "accuracy", ax: Axes | None = None) -> Axes:
    """Draw `value` against t, one line a task and arm.

    data: rows with columns t, task and value, such as `sweep` returns; value is "accuracy", "logodds", "kl", "logprob"
    (or another column). With a column arm the blend is drawn thick and its controls thin; columns value_low and
    value_high are drawn as a band (of several tasks, the blend's only). Several tasks are told apart by colour and arms
    by line and marker, the arms of one task by all three. Raises ArgError for missing columns.
    """
    table = _table("plot_curve", data, [value])
    ax = axes_of(ax)
    tasks, arms = list(table["task"].unique()), _arms(table)
    _draw(ax, table, value, tasks, arms)
    title = "task" if len(arms) < 2 else "task, arm" if len(tasks) > 1 else f"task {entry(tasks[0])}"
    legend(ax, _handles(ax, tasks, arms), title)
    return ax


def plot_sweep(data: pd.DataFrame, values: Sequence[str] = ("accuracy", "logodds", "kl")) -> Figure:
    """Draw several values of a sweep, values down and tasks across, every arm in each; returns the figure.

    data: as for `plot_curve`. The panels of a row share one scale. Raises ArgError for missing columns.
    """
    from rwkvlab.plots.panels import Panels

    values = check_items("values", values) or ["accuracy"]
    table = _table("plot_sweep", data, values)
    tasks, arms = list(table["task"].unique()), _arms(table)
    size = (min(2.0 + 3.4 * len(tasks), 60), 1.0 + 2.5 * len(values))
    figure = Panels(figsize=size, layout="constrained")
    panels = figure.subplots(len(values), len(tasks), sharex=True, sharey="row", squeeze=False)
    for row, value in zip(panels, values, strict=True):
        for ax, task in zip(row, tasks, strict=True):
            _draw(ax, table[table["task"].isin([task])], value, [task], arms)
            ax.label_outer()
    for ax, task in zip(panels[0], tasks, strict=True):
        ax.set_title(f"task {label(task)}", **words())
    if len(arms) > 1:
        handles, ax = _handles(panels[0, 0], tasks[:1], arms), panels[0, 0]
        made = figure.legend(handles=handles, loc="outside lower center", ncols=min(len(arms), 3 * len(tasks)))
        for text in made.get_texts():
            text.set(**words())
        made.get_frame().set_facecolor(ax.get_facecolor())
    return figure


def _table(plot: str, data: Any, values: list[str]) -> pd.DataFrame:
    bands = [f"{value}{end}" for value in values for end in ("_low", "_high")]
    columns = ["t", "task", *values]
    columns += ["arm"] if isinstance(data, pd.DataFrame) and "arm" in data.columns else []
    table = check_table(plot, data, columns, ["t", *values, *bands])
    numbers = [column for column in [*values, *bands] if column in table.columns]
    return table.assign(**{column: table[column].where(np.isfinite(table[column])) for column in numbers})


def _arms(table: pd.DataFrame) -> list[Any]:
    arms = list(table["arm"].unique()) if "arm" in table.columns else [MEANT]
    return sorted(arms, key=lambda arm: arm != MEANT)  # the blend first, the others as they come


def _look(ax: Axes, tasks: list[Any], arms: list[Any], task: int, arm: int) -> dict[str, Any]:
    """Return how the line of a task and an arm is drawn, each given by its number."""
    colours, style = palette(ax), arm if len(arms) > 1 else task
    series = task if len(tasks) > 1 else arm
    main = arm == 0
    return {
        "color": colours[series % len(colours)],
        "marker": MARKERS[style % len(MARKERS)],
        "linestyle": LINES[arm % len(LINES)],
        "linewidth": 2.4 if main and len(arms) > 1 else 1.5 if main else 1.1,
        "markersize": 4.5 if main else 3.5,
        "zorder": 3 if main else 2,
    }


def _draw(ax: Axes, table: pd.DataFrame, value: str, tasks: list[Any], arms: list[Any]) -> None:
    for number, task in enumerate(tasks):
        for at, arm in enumerate(arms):
            part = table[table["task"].isin([task])]
            part = part[part["arm"].isin([arm])] if "arm" in part.columns else part
            part = part.sort_values("t", kind="stable")
            look = _look(ax, tasks, arms, number, at)
            if not len(part):
                continue
            ax.plot(part["t"], part[value], **look)
            if f"{value}_low" in part.columns and f"{value}_high" in part.columns:
                if at and len(tasks) > 1:
                    continue  # ten bands over one another tell nothing
                band = 0.2 if at == 0 else 0.08
                low, high = part[f"{value}_low"], part[f"{value}_high"]
                ax.fill_between(part["t"], low, high, color=look["color"], alpha=band, linewidth=0, zorder=1)
    ax.set_xlabel(WAY)
    ax.set_ylabel(unit(value), **words())
    if value == "accuracy":
        ax.set_ylim(-0.03, 1.03)
    elif value == "logodds":
        ax.axhline(0, color=ink(ax), linewidth=0.8, alpha=0.6)
    ax.grid(alpha=0.3)


def _handles(ax: Axes, tasks: list[Any], arms: list[Any]) -> list[Any]:
    """Return one entry a task and one an arm: their lines are told apart by the two together."""
    from matplotlib.lines import Line2D

    entries = []
    if len(tasks) > 1 or len(arms) < 2:
        for number, task in enumerate(tasks):
            look = _look(ax, tasks, arms, number, 0)
            marker = {"marker": ""} if len(arms) > 1 else {}
            entries.append(Line2D([], [], **(look | marker), label=entry(task)))
    for at, arm in enumerate(arms if len(arms) > 1 else []):
        look = _look(ax, tasks, arms, 0, at)
        plain = {"color": ink(ax)} if len(tasks) > 1 else {}
        entries.append(Line2D([], [], **(look | plain), label=entry(arm)))
    return entries
