"""Plot of a text token by token: the pieces in reading order, each on a patch whose colour is its number."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rwkvlab.plots.fonts import entry, label, words
from rwkvlab.plots.style import axes_of, colour_bar, dark, extend_of, ink, ink_on, limit_of, palette, root_of
from rwkvlab.plots.tables import check_table, series, unit
from rwkvlab.shapes import check_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 4.5  # points: smaller letters are left out
LEAST_WIDE, LEAST_LINES = 24, 5  # characters and lines that a short text is given room for
PIECE = 24  # characters of a piece
Line = tuple[list[tuple[float, float, int]], str]  # (start, width, row of the table) of every token, and its name


def plot_strip(
    data: pd.DataFrame, value: str = "kl", ax: Axes | None = None, *, width: int = 80, limit: float | None = None
) -> Axes:
    """Draw the tokens of a text in reading order, `value` as their colour, on one scale.

    data: rows in order with columns piece and value ("kl" or "surprise", nats), such as `compare(…).tokens` or
    `influence(…).total`; each combination of text, prompt, state, start, sample and along begins a line of its own,
    with its name. width: characters a line (8 to 1000); limit: the end of the scale, None: covers 99.5 % of the
    numbers. Where letters would be smaller than can be read, only the colours are drawn. Raises ArgError for missing
    columns.
    """
    from matplotlib.colors import LinearSegmentedColormap

    check_range("width", width, 8, 1000, whole=True)
    table = check_table("plot_strip", data, ("piece", value), (value,))
    parts = series(data.reset_index(drop=True), "state", "start", "along", "sample", "text", "prompt")
    pieces = [_piece(piece) for piece in table["piece"]]
    lines = [line for name, part in parts for line in _wrap(name, list(part.index), pieces, width)]
    numbers = table[value].where(np.isfinite(table[value])).to_numpy()
    high = limit_of(numbers) if limit is None else float(check_range("limit", limit, 1e-300, 1e300))
    low = -high if (numbers < 0).any() else 0.0
    ax = axes_of(ax)
    ends = [palette(ax)[1]] * (low < 0) + ["black" if dark(ax) else "white", palette(ax)[0]]
    image = _patches(ax, lines, numbers, LinearSegmentedColormap.from_list("strip", ends), (low, high))
    wide = max([LEAST_WIDE, *(start + cells for tokens, _ in lines for start, cells, _ in tokens)])
    ax.set(xlim=(0, wide), ylim=(max(len(lines), LEAST_LINES) - 0.4, -0.6), xticks=[])
    named = {at: entry(said, 24) for at, (_, said) in enumerate(lines) if said}
    ax.set_yticks(list(named), list(named.values()), **words())
    ax.set_xlabel("tokens in reading order")
    ax.set_ylabel("text, line by line")
    colour_bar(ax, image, unit(value), extend_of(numbers, low, high))
    if not _write(ax, lines, pieces, image, numbers):
        image.set_linewidths(0)
        ax.set_xlabel("tokens in reading order, without their pieces: too small here")
    return ax


def _piece(piece: Any) -> str:
    text = (piece if isinstance(piece, str) else str(piece))[: PIECE + 1].replace("\n", "⏎").replace("\t", "⇥")
    return label(text, PIECE)


def _cells(text: str) -> int:
    """Return how many characters of a fixed width a piece takes: two where it is Chinese, Japanese or Korean."""
    plain = text.replace(r"\$", "$")
    return max(1, sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in plain))


def _wrap(name: str, rows: list[int], pieces: list[str], width: int) -> list[Line]:
    """Lay the pieces out in lines of at most `width` characters; the first line has the name."""
    lines: list[Line] = [([], name)]
    at = 0
    for row in rows:
        cells = min(_cells(pieces[row]), width)
        if at + cells > width:
            lines.append(([], ""))
            at = 0
        lines[-1][0].append((at, cells, row))
        at += cells
    return lines


def _patches(ax: Axes, lines: list[Line], numbers: np.ndarray, colours: Any, limits: tuple[float, float]) -> Any:
    from matplotlib.collections import PolyCollection

    low, high = limits
    cells = [(x, y, wide, row) for y, (tokens, _) in enumerate(lines) for x, wide, row in tokens]
    boxes = [[(x, y - 0.42), (x + w, y - 0.42), (x + w, y + 0.42), (x, y + 0.42)] for x, y, w, _ in cells]
    shown = np.ma.masked_invalid(numbers[[row for *_, row in cells]])
    image = PolyCollection(boxes, array=shown, cmap=colours, clim=(low, high), edgecolors="0.5", linewidths=0.4)
    ax.add_collection(image)
    return image


def _write(ax: Axes, lines: list[Line], pieces: list[str], image: Any, numbers: np.ndarray) -> bool:
    """Write every piece on its patch, as large as there is room for; return whether there was room."""
    root = root_of(ax)
    root.draw_without_rendering()  # settles where the axes are
    box = ax.get_window_extent()
    across, down = 72 * box.width / root.dpi, 72 * box.height / root.dpi  # points
    (_, wide), (low, high) = ax.get_xlim(), ax.get_ylim()
    size = min(11.0, across * 0.97 / (0.602 * wide), down * 0.7 / (low - high))
    if size < LEAST:
        return False
    look: Any = {"fontsize": size, "ha": "center", "va": "center_baseline", "clip_on": True, **words(mono=True)}
    for y, (tokens, _) in enumerate(lines):
        for x, wide, row in tokens:
            known = np.isfinite(numbers[row])
            colour = ink_on(image.cmap(image.norm(numbers[row]))) if known else ink(ax)
            ax.text(x + wide / 2, y, pieces[row], color=colour, **look)
    return True
