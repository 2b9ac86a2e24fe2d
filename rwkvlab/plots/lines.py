"""Lines along a text: one a head, coloured by layer, and one a start, smoothed over its raw points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry, words
from rwkvlab.plots.style import LINES, axes_of, ink, integer_ticks, legend, palette, ramp
from rwkvlab.plots.tables import check_table, check_wide, series, unit
from rwkvlab.shapes import check_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 64  # heads of which the median is drawn too
KEPT = 40  # a smoothed line follows about so many parts of a text
CORNERS = ("upper right", "upper left", "lower right", "lower left")
GAP = 0.02  # of the height of the axes, between a legend and what is drawn
COLUMNS = 4  # of a flat legend, at most
LEAST = 0.4  # of the height of the axes, left to what is drawn


def plot_over_time(data: pd.DataFrame, value: str = "norm", ax: Axes | None = None) -> Axes:
    """Draw `value` of every head against the tokens read, one line a head, layers in colours.

    data: rows with columns token, layer, head and value ("norm", "effective_rank", …), such as `over_time` returns.
    Raises ArgError for missing columns.
    """
    ax = draw_heads(ax, "plot_over_time", data, value)
    ax.set_ylabel(unit(value), **words())
    return ax


def plot_surprise(
    data: pd.DataFrame, value: str = "surprise", ax: Axes | None = None, *, window: int | None = None
) -> Axes:
    """Draw `value` token by token along a text, one line a start: the mean over `window` tokens, raw points faint.

    data: rows with columns token and value ("surprise" or "kl", nats), such as `influence(…).total`; one line a
    combination of start, state, text, prompt, sample and along. With a column surprise_zero the zero start is drawn
    beside them. window: tokens, None for a fortieth of the text. Raises ArgError for missing columns.
    """
    ax, parts = draw_along(ax, "plot_surprise", data, value, window)
    if value == "surprise" and "surprise_zero" in data.columns:
        draw_along(ax, "plot_surprise", parts[0][1], "surprise_zero", window, at=len(parts), name="zero")
    ax.set_ylabel(unit(value), **words())
    legend(ax)
    return ax


def draw_heads(ax: Axes | None, plot: str, data: Any, value: str, *, median: bool = False) -> Axes:
    """Draw one line a head against the column token, layers in colours with their key, and return the axes."""
    from matplotlib.collections import LineCollection

    wide = check_wide(plot, data, "token", value)
    ax = axes_of(ax)
    layers = sorted(set(wide.columns.get_level_values("layer")))
    few = len(layers) <= len(palette(ax))
    shades = ramp(ax, layers[-1] + 1)
    alpha = max(0.15, min(1.0, 60 / wide.shape[1]))
    for at, layer in enumerate(layers):
        lines = lines_of(wide.loc[:, wide.columns.get_level_values("layer") == layer])
        colour: Any = palette(ax)[at] if few else shades(layer)
        style = LINES[at % len(LINES)] if few else "-"
        ax.add_collection(LineCollection(list(lines), colors=[colour], linestyles=[style], linewidths=1.1, alpha=alpha))
        if few:
            ax.plot([], [], color=colour, linestyle=style, label=f"layer {layer}")
    if median or wide.shape[1] > MANY:
        ax.plot(wide.index, wide.median(axis=1), color=ink(ax), linewidth=2.4, label="median of the heads", zorder=3)
    ax.autoscale_view()
    ax.set_xlabel("tokens read")
    integer_ticks(ax, "x")
    ax.grid(alpha=0.3)
    if not few:
        _layer_bar(ax, shades, layers[-1])
    legend(ax, title="one line a head")
    uncover(ax)
    return ax


def draw_along(
    ax: Axes | None, plot: str, data: Any, value: str, window: int | None = None, *, at: int = 0, name: str = ""
) -> tuple[Axes, list[tuple[str, pd.DataFrame]]]:
    """Draw `value` against the column token, one line a start, and return the axes and the parts of the table."""
    table = check_table(plot, data, ("token", value), ("token", value))
    parts = series(data.reset_index(drop=True), "start", "state", "along", "sample", "text", "prompt")
    longest = max(len(part) for _, part in parts)
    window = max(1, longest // KEPT) if window is None else int(check_range("window", window, 1, 10**9, whole=True))
    ax = axes_of(ax)
    for number, (said, part) in enumerate(parts, at):
        rows = table.loc[part.index].sort_values("token", kind="stable")
        rows = rows.assign(**{value: rows[value].where(np.isfinite(rows[value]))})
        colour = palette(ax)[number % len(palette(ax))]
        style = LINES[number % len(LINES)]
        smooth = rows[value].rolling(window, center=True, min_periods=1).mean()
        if window > 1:
            ax.plot(rows["token"], rows[value], ".", color=colour, markersize=2.5, alpha=0.25, zorder=1)
        text = entry(name or said or value)
        ax.plot(rows["token"], smooth, color=colour, linestyle=style, linewidth=1.8, label=text, zorder=2)
    ax.set_xlabel("token of the text" + (f" (lines: mean of {window} tokens)" if window > 1 else ""))
    integer_ticks(ax, "x")
    ax.grid(alpha=0.3)
    return ax, parts


def uncover(ax: Axes) -> None:
    """Move the legend to a corner where nothing is drawn; where there is none, flat under a top that is raised for it.

    Matplotlib's own "best" place sees neither collections of lines nor bands.
    """
    box: Any = ax.get_legend()
    if box is None:
        return
    paths = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    paths += [ax.transData.transform_path(path) for some in ax.collections for path in some.get_paths()]
    texts = [text.get_window_extent() for text in ax.texts]
    for corner in CORNERS:
        box.set_loc(corner)
        place = box.get_window_extent().padded(GAP * ax.bbox.height)
        if not any(path.intersects_bbox(place) for path in paths) and not any(map(place.overlaps, texts)):
            return
    count, title = len(box.get_texts()), box.get_title().get_text()
    for columns in range(min(count, COLUMNS), 0, -1):
        legend(ax, title=title, loc="upper center", ncols=columns)
        box = ax.get_legend()
        if box.get_window_extent().width < ax.bbox.width:
            break
    points = np.concatenate([*(np.asarray(path.vertices) for path in paths), *(np.array([text.max]) for text in texts)])
    heights = ax.transAxes.inverted().transform(points[np.isfinite(points).all(axis=1)])[:, 1]
    free = ax.transAxes.inverted().transform(box.get_window_extent().min)[1] - GAP
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim(), dtype=float))
    top = low + (high - low) * min(1.0, heights.max()) / max(free, LEAST)
    ax.set_ylim(top=float(scale.inverted().transform(np.array([top]))[0]))


def lines_of(wide: pd.DataFrame) -> np.ndarray:
    """Return the columns of a table as lines [columns, rows, 2] over its index."""
    values = wide.to_numpy(dtype=float).T
    return np.stack(np.broadcast_arrays(wide.index.to_numpy(dtype=float)[None], values), axis=-1)


def _layer_bar(ax: Axes, shades: Any, last: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    image = ScalarMappable(Normalize(-0.5, last + 0.5), shades)
    ax.figure.colorbar(image, ax=ax, ticks=MaxNLocator(integer=True)).set_label("layer")
