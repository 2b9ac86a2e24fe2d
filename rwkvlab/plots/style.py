"""The look of all plots: colours that are told apart on light and on dark, limits about zero, colour bars, legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.fonts import families, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DIVERGING = "RdBu_r"
DIVERGING_DARK = "berlin"  # matplotlib 3.10 and newer
SEQUENTIAL = "cividis"
# after Okabe and Ito: told apart with any colour vision, each at least 3:1 against white, or against black
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#882255", "#5D3FD3")
COLOURS_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#FFFFFF", "#F0E442", "#D55E00")
MARKERS = "osD^vPX*"
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
ROBUST = 99.5  # per cent of the values that a colour scale covers; the rest is drawn in its end colour
CONTRAST = 3.0  # least contrast of a line against what is behind it
ENTRIES = 80  # names in a legend; more are counted
SHORT = 24  # characters of a name in a legend of many


def axes_of(ax: Axes | None) -> Axes:
    """Return `ax`, or pyplot's current axes; raises ArgError for what is none."""
    from matplotlib.axes import Axes

    if ax is None:
        from matplotlib.pyplot import gca

        return gca()
    if not isinstance(ax, Axes):
        raise ArgError(f"ax: need the Axes of one panel, or None, got {show(type(ax).__name__)}")
    return ax


def root_of(ax: Axes) -> Figure:
    """Return the whole figure that `ax` is in, through all subfigures."""
    return ax.figure.figure  # type: ignore[return-value]


def luminance(colour: Any) -> np.ndarray:
    """Return the relative luminance (0 black to 1 white, WCAG 2) of colours, each as matplotlib takes them."""
    from matplotlib.colors import to_rgba_array

    rgb = to_rgba_array(colour)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(one: Any, other: Any) -> np.ndarray:
    """Return the contrast (1 to 21, WCAG 2) of two luminances."""
    return (np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05)


def background(ax: Axes) -> float:
    """Return the luminance of what is behind the lines of `ax`; behind clear axes lies their figure."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgba

    guess = 1.0 - float(luminance(rcParams["text.color"])[0])  # light text is meant for a dark page
    for patch in (root_of(ax).patch, ax.patch):
        alpha = to_rgba(patch.get_facecolor())[3] if patch.get_visible() else 0.0
        guess = alpha * float(luminance(patch.get_facecolor())[0]) + (1 - alpha) * guess
    return guess


def dark(ax: Axes) -> bool:
    """Whether white is easier to read on `ax` than black."""
    return background(ax) < 0.179


def ink(ax: Axes) -> str:
    """Return the colour of a text or line inside `ax` that has no colour of its own."""
    return "white" if dark(ax) else "black"


def ink_on(colour: Any) -> str:
    """Return the colour of a text on a patch of `colour`."""
    return "white" if luminance(colour)[0] < 0.179 else "black"


def palette(ax: Axes) -> tuple[str, ...]:
    """Return the colours of series, in order."""
    return COLOURS_DARK if dark(ax) else COLOURS


def ramp(ax: Axes, count: int) -> Colormap:
    """Return `count` colours in an order that is seen, such as that of layers, all of them legible on `ax`."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    shades = colormaps["viridis"](np.linspace(0, 1, 256))
    legible = shades[contrast(luminance(shades), background(ax)) >= CONTRAST]
    shades = legible if len(legible) >= 64 else shades
    return ListedColormap(shades[np.linspace(0, len(shades) - 1, max(count, 1)).round().astype(int)])


def colours_for(ax: Axes, signed: bool) -> Colormap:
    """Return the colours of a map: about zero where signed, else from nothing to much."""
    from matplotlib import colormaps

    if not signed:
        return colormaps[SEQUENTIAL]
    return colormaps[DIVERGING_DARK if dark(ax) and DIVERGING_DARK in colormaps else DIVERGING]


def limit_of(values: Any) -> float:
    """Return the end of a colour scale about zero: covers 99.5 % of the finite |values|, all of them where
    there are few; 1 where there are none."""
    finite = np.abs(np.asarray(values, dtype=float))
    finite = finite[np.isfinite(finite)]
    high = float(np.percentile(finite, ROBUST, method="higher")) if finite.size else 0.0
    return high or (float(finite.max()) if finite.size else 0.0) or 1.0


def extend_of(values: Any, low: float, high: float) -> str:
    """Return which ends of a colour scale have values beyond them: "neither", "min", "max" or "both"."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    under, over = bool((finite < low).any()), bool((finite > high).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[under, over]


def colour_bar(ax: Axes | Sequence[Axes], image: Any, text: str, extend: str = "neither") -> None:
    """Add a colour bar with its unit beside `ax`, or beside all of several."""
    figure: Any = (ax[0] if isinstance(ax, Sequence) else ax).figure
    where: Any = list(ax) if isinstance(ax, Sequence) else ax
    figure.colorbar(image, ax=where, extend=extend, shrink=0.9).set_label(text, **words())


def integer_ticks(ax: Axes, *axes: str) -> None:
    """Put ticks at whole numbers only, on the axes named ("x", "y")."""
    from matplotlib.ticker import MaxNLocator

    for name in axes:
        getattr(ax, f"{name}axis").set_major_locator(MaxNLocator(integer=True))


def legend(ax: Axes, handles: Sequence[Any] | None = None, title: str = "", **options: Any) -> None:
    """Add a legend in the colours of `ax`: small print and columns where there are many names, none for no name."""
    from matplotlib.lines import Line2D

    handles = list(ax.get_legend_handles_labels()[0] if handles is None else handles)
    if len(handles) > ENTRIES:
        handles = [*handles[:ENTRIES], Line2D([], [], linestyle="", label=f"… {len(handles) - ENTRIES} more")]
    if not handles:
        return
    many: Any = {"ncols": 1 + (len(handles) - 1) // 20, "fontsize": "xx-small"} if len(handles) > 12 else {}
    made = ax.legend(handles=handles, title=title or None, facecolor=ax.get_facecolor(), **(many | options))
    for text in (*made.get_texts(), made.get_title()):
        said = text.get_text()
        short = f"{said[: SHORT - 1]}…" if many and len(said) > SHORT else said
        text.set(text=short, fontfamily=list(families()), usetex=False, color=ink(ax))
