"""The look of all plots: colours, limits about zero, and text that is drawn with fonts that are there."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rwkvlab.errors import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIVERGING = "RdBu_r"
SEQUENTIAL = "cividis"
# Okabe and Ito: told apart with any colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
MARKERS = "osD^vPX*"
ROBUST = 99.5  # per cent of the values that a colour scale covers; the rest is drawn in its end colour
CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN", "PingFang SC"),
    *("Hiragino Sans GB", "Heiti TC", "STHeiti", "Microsoft YaHei", "SimHei", "SimSun", "Arial Unicode MS"),
)
NO_FONT = "no installed font has some of these characters: they are shown by code; apt install fonts-wqy-microhei"


@lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """Return the font families to draw text with: DejaVu Sans, then the CJK fonts that are installed."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in CJK_FONTS if name in there))


@lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, fontManager
    from matplotlib.ft2font import FT2Font

    codes: set[int] = set()
    for family in families():
        codes.update(FT2Font(fontManager.findfont(FontProperties(family=[family]))).get_charmap())
    return frozenset(codes)


def label(text: object, limit: int = 40) -> str:
    """Return `text` as matplotlib can draw it: cut, on one line, no mathtext, characters without a font by their code.

    Warns where a letter has no font, with what to install.
    """
    safe = show(text, limit)[1:-1]
    missing = {char for char in safe if ord(char) not in _drawable()}
    if missing:
        warnings.warn(NO_FONT, UserWarning, stacklevel=1)  # one place, one text: shown once
        safe = "".join(f"\\u{ord(char):04x}" if char in missing else char for char in safe)
    return safe.replace("$", r"\$")


def limit_of(values: Any) -> float:
    """Return the end of a colour scale about zero: covers 99.5 % of the finite |values|, all of them where
    there are few; 1 where there are none."""
    finite = np.abs(np.asarray(values, dtype=float))
    finite = finite[np.isfinite(finite)]
    high = float(np.percentile(finite, ROBUST, method="higher")) if finite.size else 0.0
    return high or (float(finite.max()) if finite.size else 0.0) or 1.0


def axes_of(ax: Axes | None) -> Axes:
    """Return `ax`, or pyplot's current axes."""
    if ax is None:
        from matplotlib.pyplot import gca

        return gca()
    return ax


def colour_bar(ax: Axes, image: Any, text: str, extend: str = "neither") -> None:
    """Add a colour bar with its unit beside `ax`."""
    figure: Figure = ax.figure  # type: ignore[assignment]
    figure.colorbar(image, ax=ax, label=text, extend=extend, shrink=0.9)


def extend_of(values: Any, low: float, high: float) -> str:
    """Return which ends of a colour scale have values beyond them: "neither", "min", "max" or "both"."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    under, over = bool((finite < low).any()), bool((finite > high).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[under, over]
