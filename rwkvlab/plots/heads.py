"""Plots of states: one number a head as a map of layers by heads, and the matrix of one head about zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.fonts import label, words
from rwkvlab.plots.style import axes_of, colour_bar, colours_for, extend_of, integer_ticks, limit_of
from rwkvlab.plots.tables import INFINITE, SIGNED, check_places, check_table, unit
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap


def plot_heads(
    data: State | pd.DataFrame, value: str | None = None, ax: Axes | None = None, *, limit: float | None = None
) -> Axes:
    """Draw one number a head, layers down and heads across.

    data: a State, of which the Frobenius norm of each head is drawn, or a DataFrame with columns layer, head and
    `value` (None: the first column of numbers after them), one row a head. Numbers that may be negative are drawn about
    zero. The colour scale covers 99.5 % of them, or ends at `limit`, so that two maps can share one. Infinite numbers
    are crossed, heads without a number hatched. Raises ArgError for missing columns, and where a head has several rows.
    """
    grid, name, title = grid_of(data, value)
    high = limit_of(grid) if limit is None else _limit(limit)
    ax = axes_of(ax)
    low = -high if name in SIGNED or bool((grid < 0).any()) else 0.0
    colours = colours_for(ax, low < 0)
    finite = np.where(np.isfinite(grid), grid, np.nan)
    image = ax.imshow(finite, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    said = _mark(ax, grid, colours, INFINITE.get(name, ""))
    colour_bar(ax, image, "\n".join([unit(name), *said]), extend_of(grid, low, high))
    _label_axes(ax, "head", "layer", title)
    return ax


def plot_head(state: State, layer: int, head: int, ax: Axes | None = None, *, limit: float | None = None) -> Axes:
    """Draw the [V,K] matrix of one head: value channels down, key channels across, colours about zero.

    The colour scale covers 99.5 % of the entries, or ends at ±`limit`. Raises ArgError for a layer or head that is not
    there.
    """
    matrix = matrix_of("state", state, layer, head)
    high = limit_of(matrix) if limit is None else _limit(limit)
    ax = axes_of(ax)
    image = draw_matrix(ax, matrix, high)
    colour_bar(ax, image, "state (state units)", extend_of(matrix, -high, high))
    name = f"{label(state.card.name)}\n" if state.card.name else ""
    ax.set_title(f"{name}layer {layer}, head {head}", **words())
    return ax


def grid_of(data: Any, value: str | None) -> tuple[np.ndarray, str, str]:
    """Return what `plot_heads` draws: the numbers [L,H], nan where there is none, their column, and a title."""
    return _norms(data) if isinstance(data, State) else _column(data, value)


def matrix_of(what: str, state: Any, layer: int, head: int) -> np.ndarray:
    """Return the [V,K] matrix of one head; raises ArgError for what is no State, and for a place it does not have."""
    if not isinstance(state, State):
        raise ArgError(f"{what}: need a State, got {show(type(state).__name__)}")
    layers, heads = state.wkv.shape[:2]
    check_range("layer", layer, 0, layers - 1, whole=True)
    check_range("head", head, 0, heads - 1, whole=True)
    return state.wkv[layer, head].detach().cpu().numpy()


def draw_matrix(ax: Axes, matrix: np.ndarray, high: float) -> Any:
    """Draw a [V,K] matrix with the colours of -high to high."""
    image = ax.imshow(matrix, cmap=colours_for(ax, True), vmin=-high, vmax=high, interpolation="nearest")
    _label_axes(ax, "key channel", "value channel", "")
    return image


def _limit(limit: float) -> float:
    return float(check_range("limit", limit, 1e-300, 1e300))


def _norms(state: State) -> tuple[np.ndarray, str, str]:
    grid = state.wkv.detach().cpu().double().flatten(2).norm(dim=-1).numpy()
    return grid, "norm", label(state.card.name or state.card.recipe)


def _column(data: pd.DataFrame, value: str | None) -> tuple[np.ndarray, str, str]:
    if not isinstance(data, pd.DataFrame):
        raise ArgError(f"plot_heads: need a State or a DataFrame, got {show(type(data).__name__)}")
    if value is None:
        numbers = data.select_dtypes("number").columns
        value = next((column for column in numbers if column not in ("layer", "head", "token")), "value")
    table = check_table("plot_heads", data, ("layer", "head", value), ("layer", "head", value))
    table = check_places("plot_heads", table, "layer", "head")
    places = table["layer"].to_numpy(), table["head"].to_numpy()
    if (twice := table.duplicated(["layer", "head"])).any():
        first = table[twice].iloc[0]
        others = [column for column in data.columns if data[column].nunique() > 1]
        hint = next((column for column in ("state", "token", "part", "text") if column in others), "column")
        raise ArgError(
            f"plot_heads: several rows for layer {first['layer']:.0f}, head {first['head']:.0f}; "
            f"choose one, such as data[data[{hint!r}] == …]"
        )
    grid = np.full([int(place.max()) + 1 for place in places], np.nan)
    grid[places] = table[value]
    return grid, str(value), ""


def _mark(ax: Axes, grid: np.ndarray, colours: Colormap, why: str) -> list[str]:
    """Cross the infinite cells, hatch those without a number, and return what that means."""
    said = []
    ends = ((np.isposinf(grid), colours(1.0)), (np.isneginf(grid), colours(0.0)))
    for cells, face in ends:
        _hatch(ax, cells, "xxxx", face)
    if any(cells.any() for cells, _ in ends):
        said.append(f"crossed: infinite ({why})" if why else "crossed: infinite")
    if np.isnan(grid).any():
        _hatch(ax, np.isnan(grid), "////", "none")
        said.append("hatched: no number")
    return said


def _hatch(ax: Axes, cells: np.ndarray, hatch: str, face: Any) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    squares = [Rectangle((head - 0.5, layer - 0.5), 1, 1) for layer, head in np.argwhere(cells)]
    if squares:
        ax.add_collection(PatchCollection(squares, facecolor=face, edgecolor="0.5", linewidth=0, hatch=hatch))


def _label_axes(ax: Axes, across: str, down: str, title: str) -> None:
    ax.set_xlabel(across)
    ax.set_ylabel(down)
    ax.set_title(title, **words())
    integer_ticks(ax, "x", "y")
