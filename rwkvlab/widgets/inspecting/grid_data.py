"""What a StateGrid sends to the page: the numbers of the maps and of one head, their colour scales, and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rwkvlab.errors import MismatchError, show
from rwkvlab.plots.heads import grid_of
from rwkvlab.plots.pairs import SMALL
from rwkvlab.plots.style import DIVERGING, DIVERGING_DARK, ROBUST, SEQUENTIAL, limit_of
from rwkvlab.plots.tables import INFINITE, SIGNED, UNITS
from rwkvlab.states.render import head_norms
from rwkvlab.states.state import State

NAME = 48  # characters of a name that are shown
Numbers = State | pd.DataFrame


class Map(NamedTuple):
    """One number a head, [L,H], nan where there is none, and the name of what it is."""

    values: np.ndarray
    column: str

    def table(self) -> pd.DataFrame:
        """Return it as a table that plots take: layer, head and the column."""
        layer, head = np.indices(self.values.shape)
        return pd.DataFrame({"layer": layer.ravel(), "head": head.ravel(), self.column: self.values.ravel()})


def map_of(data: Numbers, value: str | None, shape: Sequence[int]) -> Map:
    """Return the norms of a State, or a column of a table as `plot_heads` takes it, as a map of `shape` [L,H].

    Raises ArgError for what cannot be drawn, MismatchError for a table of more heads than there are.
    """
    if isinstance(data, State):
        return Map(head_norms(data).numpy(), "norm")
    values, column, _ = grid_of(data, value)
    if any(have > there for have, there in zip(values.shape, shape, strict=True)):
        raise MismatchError(f"overview: the table has [L,H] {list(values.shape)}, the state {list(shape)}")
    whole = np.full(tuple(shape), np.nan)
    whole[: values.shape[0], : values.shape[1]] = values
    return Map(whole, column)


def maps_told(maps: Sequence[Map], names: Sequence[str]) -> dict[str, Any]:
    """Return what the page paints maps [n,L,H] from; the first two share one scale where they show the same."""
    alike = len(maps) > 1 and maps[0].column == maps[1].column
    pair = np.stack([one.values for one in maps[:2]])
    told = []
    for at, (values, column) in enumerate(maps):
        shown = pair if alike and at < 2 else values
        high = limit_of(shown)
        signed = column in SIGNED or bool((shown < 0).any())
        infinite, note = INFINITE.get(column, "infinite"), _note(values, high, "heads")
        if count := int(np.isinf(values).sum()):
            note += f"; {count:,} {infinite}"
        what = UNITS.get(column) or show(column, NAME)[1:-1]
        scale = {"low": -high if signed else 0.0, "high": high, "note": note, "infinite": infinite}
        told.append({"name": names[at], "what": what} | scale)
    data = np.stack([one.values for one in maps]).astype(np.float32)
    return {"shape": list(data.shape), "maps": told, "data": data.tobytes()}


def head_told(data: np.ndarray, names: Sequence[str], place: Sequence[int], own_scale: bool) -> dict[str, Any]:
    """Return what the page paints the matrices [n,V,K] of one head from.

    All have one scale about zero; with own_scale the third, the difference, has another.
    """
    limits = [limit_of(data)] * len(data)
    if own_scale and len(data) > 2:
        limits = [*[limit_of(data[:2])] * 2, limit_of(data[2])]
    layer, head = (int(x) for x in place)
    parts: list[dict[str, Any]] = []
    for name, limit, matrix in zip(names, limits, data, strict=True):
        what = f"layer {layer}, head {head}, norm {np.linalg.norm(matrix.astype(float)):.3g}"
        parts.append({"name": name, "what": what, "limit": limit, "note": _note(matrix, limit, "entries")})
    if len(data) > 2 and not data[2].any():
        parts[2]["note"] += "; nothing differs"
    elif len(data) > 2 and limit_of(data[2]) < SMALL * limits[2]:
        parts[2]["note"] += "; small on this scale"
    return {"at": [layer, head], "shape": list(data.shape), "parts": parts, "data": data.tobytes()}


def colours_told() -> bytes:
    """Return the colours of the plots, 256 times RGB each: about zero on light, on dark, and from nothing to much."""
    from matplotlib import colormaps

    names = (DIVERGING, DIVERGING_DARK if DIVERGING_DARK in colormaps else DIVERGING, SEQUENTIAL)
    return b"".join(colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes() for name in names)


def _note(values: np.ndarray, limit: float, what: str) -> str:
    """Return in words what a colour scale covers and what it leaves out."""
    beyond = int((np.abs(values[np.isfinite(values)]) > limit).sum())
    words = f"scale covers {ROBUST} % of the {what}; {beyond:,} beyond" if beyond else f"scale covers all {what}"
    missing = int(np.isnan(values).sum())
    return f"{words}; {missing:,} {'without a number' if what == 'heads' else 'NaN'}" if missing else words
