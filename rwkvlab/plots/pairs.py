"""Plots of two states: one head of each side by side with the difference, and where in the model they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, MismatchError, show
from rwkvlab.plots.fonts import label, words
from rwkvlab.plots.heads import draw_matrix, grid_of, matrix_of, plot_heads
from rwkvlab.plots.style import colour_bar, extend_of, limit_of
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = 0.1  # of the scale: a difference below it is hardly seen on the scale of the states


def plot_pair(a: State, b: State, layer: int, head: int, *, one_scale: bool = True) -> Figure:
    """Draw the [V,K] matrix of one head of two states, and b - a; returns the figure, unknown to pyplot.

    All three have one colour scale about zero, which covers 99.5 % of the entries; where the difference is small on it,
    its title says so. one_scale=False gives the difference a scale of its own. Raises ArgError for a place that is not
    there, MismatchError for states of different shape.
    """
    from rwkvlab.plots.panels import Panels

    _check_alike(a, b)
    figure = Panels(figsize=(11.5, 4.4), layout="constrained")
    _draw_pair(list(figure.subplots(1, 3)), a, b, layer, head, one_scale)
    return figure


def plot_diff(
    a: State, b: State, data: pd.DataFrame | None = None, value: str | None = None, *, one_scale: bool = True
) -> Figure:
    """Draw where two states differ, layers by heads, above the head that differs most; returns the figure.

    data: a table with columns layer, head and `value` (None: the first number), such as `head_distance` or
    `readout_distance` returns; None: the norm of b - a of each head. The head with the largest value (the smallest
    cosine) is framed, and drawn below as by `plot_pair`. Raises ArgError and MismatchError.
    """
    from matplotlib.patches import Rectangle

    from rwkvlab.plots.panels import Panels

    _check_alike(a, b)
    what = b - a if data is None else data
    grid, name, _ = grid_of(what, value)
    if any(have > want for have, want in zip(grid.shape, a.wkv.shape[:2], strict=True)):
        raise MismatchError(
            f"plot_diff: the table has layers and heads up to {list(grid.shape)}, the states {list(a.wkv.shape[:2])};"
            " give the table of these states"
        )
    if np.isnan(grid).all():
        raise ArgError(f"plot_diff: no head has a number in {show(name)}; choose another value")
    rank = np.where(np.isnan(grid), -np.inf, -grid if name == "cosine" else grid)
    layer, head = divmod(int(rank.argmax()), grid.shape[1])
    figure = Panels(figsize=(11.5, 7.6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.35))
    above, below = parts
    top = above.subplots()
    plot_heads(what, name, ax=top)
    for width, colour in ((5.0, "white"), (2.5, "black")):  # seen on any colour
        top.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width))
    top.set_title(f"{_name(b, 'b')} − {_name(a, 'a')}; framed: layer {layer}, head {head}", **words())
    _draw_pair(list(below.subplots(1, 3)), a, b, layer, head, one_scale)
    return figure


def _check_alike(a: Any, b: Any) -> None:
    for name, state in (("a", a), ("b", b)):
        if not isinstance(state, State):
            raise ArgError(f"{name}: need a State, got {show(type(state).__name__)}")
    if a.wkv.shape != b.wkv.shape:
        raise MismatchError(
            f"shapes differ, [L,H,V,K] {list(a.wkv.shape)} and {list(b.wkv.shape)}; give states of one model"
        )


def _name(state: State, else_: str) -> str:
    return label(state.card.name or else_, 24)


def _draw_pair(panels: list[Axes], a: State, b: State, layer: int, head: int, one_scale: bool) -> None:
    one, two = (matrix_of(name, state, layer, head) for name, state in (("a", a), ("b", b)))
    change = two - one
    high = limit_of(np.stack((one, two, change)))
    own = high if one_scale else limit_of(change)
    norms = [float(np.linalg.norm(x.astype(float))) for x in (one, two, change)]
    titles = [_name(a, "a"), _name(b, "b"), "difference, second − first"]
    images = []
    for ax, matrix, title, norm in zip(panels, (one, two, change), titles, norms, strict=True):
        images.append(draw_matrix(ax, matrix, own if matrix is change else high))
        ax.set_title(f"{title}\nlayer {layer}, head {head}, norm {norm:.3g}", **words())
    if one_scale and (not norms[2] or limit_of(change) < SMALL * high):
        note = f"at most {np.abs(change).max():.2g}: hardly seen on this scale" if norms[2] else "the same"
        panels[2].set_title(f"{panels[2].get_title()}\n{note}", **words())
    groups = [panels] if one_scale else [panels[:2], panels[2:]]
    for group, matrices, end in zip(groups, ((one, two, change), (change,)), (high, own), strict=False):
        shown = np.stack(matrices[: len(group)])
        colour_bar(group, images[panels.index(group[0])], "state (state units)", extend_of(shown, -end, end))
