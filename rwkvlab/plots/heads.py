"""Plots of states: one number a head as a map of layers by heads, and the matrix of one head about zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.style import DIVERGING, SEQUENTIAL, axes_of, colour_bar, extend_of, families, label, limit_of
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {
    "norm": "Frobenius norm (state units)",
    "frobenius": "Frobenius distance (state units)",
    "relative": "relative distance (of the first state's norm)",
    "cosine": "cosine",
}
SIGNED = ("cosine",)  # zero is the middle of their colours even where no value is negative


def plot_heads(data: State | pd.DataFrame, value: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw one number a head, layers down and heads across.

    data: a State, of which the Frobenius norm of each head is drawn, or a DataFrame with columns layer, head and
    `value` (None: the first other column). Numbers that may be negative are drawn about zero; a colour scale covers
    99.5 % of them, and heads without a finite number stay blank. Raises ArgError for missing columns.
    """
    grid, name, title = _norms(data) if isinstance(data, State) else _column(data, value)
    ax = axes_of(ax)
    high = limit_of(grid)
    low = -high if name in SIGNED or bool((grid < 0).any()) else 0.0
    colours = DIVERGING if low < 0 else SEQUENTIAL
    image = ax.imshow(grid, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    colour_bar(ax, image, UNITS.get(name, label(name)), extend_of(grid, low, high))
    _label_axes(ax, "head", "layer", title)
    return ax


def plot_head(state: State, layer: int, head: int, ax: Axes | None = None) -> Axes:
    """Draw the [V,K] matrix of one head: value channels down, key channels across, colours about zero.

    The colour scale covers 99.5 % of the entries. Raises ArgError for a layer or head that is not there.
    """
    layers, heads = state.wkv.shape[:2]
    check_range("layer", layer, 0, layers - 1, whole=True)
    check_range("head", head, 0, heads - 1, whole=True)
    ax = axes_of(ax)
    matrix = state.wkv[layer, head].detach().cpu().numpy()
    high = limit_of(matrix)
    image = ax.imshow(matrix, cmap=DIVERGING, vmin=-high, vmax=high, interpolation="nearest")
    colour_bar(ax, image, "state (state units)", extend_of(matrix, -high, high))
    name = f"{label(state.card.name)}\n" if state.card.name else ""
    _label_axes(ax, "key channel", "value channel", f"{name}layer {layer}, head {head}")
    return ax


def _norms(state: State) -> tuple[np.ndarray, str, str]:
    grid = state.wkv.detach().cpu().double().flatten(2).norm(dim=-1).numpy()
    return grid, "norm", label(state.card.name or state.card.recipe)


def _column(data: pd.DataFrame, value: str | None) -> tuple[np.ndarray, str, str]:
    if not isinstance(data, pd.DataFrame):
        raise ArgError(f"plot_heads: need a State or a DataFrame, got {show(type(data).__name__)}")
    others = [column for column in data.columns if column not in ("layer", "head")]
    value = others[0] if value is None and others else value
    missing = [column for column in ("layer", "head", value) if column not in data.columns]
    if missing:
        raise ArgError(f"plot_heads: need columns layer, head and a value; {show(missing[0])} is not among them")
    grid = data.pivot_table(index="layer", columns="head", values=value, aggfunc="mean", dropna=False)
    grid = grid.reindex(index=range(int(grid.index.max()) + 1), columns=range(int(grid.columns.max()) + 1))
    numbers = grid.to_numpy(dtype=float)
    return np.where(np.isfinite(numbers), numbers, np.nan), str(value), ""


def _label_axes(ax: Axes, across: str, down: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(across)
    ax.set_ylabel(down)
    ax.set_title(title, fontfamily=list(families()))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
