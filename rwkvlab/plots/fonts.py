"""Text as it can be drawn: the fonts that are there, and characters without one by their code."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

from rwkvlab.errors import show

CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN", "PingFang SC"),
    *("Hiragino Sans GB", "Heiti TC", "STHeiti", "Microsoft YaHei", "SimHei", "SimSun", "Arial Unicode MS"),
)
ALSO_CJK = re.compile(r"CJK|Source Han|WenQuanYi|WenKai|Sarasa| (SC|TC|HK|JP|KR|CN)$|(Hei|Song|Ming|Kai)( |$)")
NO_FONT = "no installed font has some of these characters: they are shown by code; apt install fonts-wqy-microhei"


def families(mono: bool = False) -> tuple[str, ...]:
    """Return the font families to draw text with: those of rcParams that are installed, then CJK fonts that are."""
    from matplotlib import rcParams
    from matplotlib.font_manager import fontManager

    wanted = ["monospace"] if mono else list(rcParams["font.family"])
    generic: Any = {name: rcParams[f"font.{name}"] for name in ("serif", "sans-serif", "monospace")}  # type: ignore[index]
    names = [one for name in wanted for one in generic.get(name, [name])]
    return _families(tuple(names), len(fontManager.ttflist))


def words(mono: bool = False) -> dict[str, Any]:
    """Return the properties of a drawn text that holds names from outside."""
    return {"fontfamily": list(families(mono)), "usetex": False}


@lru_cache(maxsize=32)
def _families(wanted: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` fonts are known: a font that is added makes this forget."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    more = sorted(name for name in there if ALSO_CJK.search(name))
    first = [name for name in wanted if name in there]
    return tuple(dict.fromkeys([*first, "DejaVu Sans", *(name for name in CJK_FONTS if name in there), *more]))


@lru_cache(maxsize=32)
def _drawable(names: tuple[str, ...]) -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, fontManager
    from matplotlib.ft2font import FT2Font

    codes: set[int] = set()
    for name in names:
        codes.update(FT2Font(fontManager.findfont(FontProperties(family=[name]))).get_charmap())
    return frozenset(codes)


@lru_cache(maxsize=1)
def _add_new_fonts() -> None:
    """Make known the CJK fonts that were installed after matplotlib wrote down its list of fonts."""
    from matplotlib.font_manager import findSystemFonts, fontManager
    from matplotlib.ft2font import FT2Font

    known = {entry.fname for entry in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - known):
        try:
            name = FT2Font(path).family_name
            if name in CJK_FONTS or ALSO_CJK.search(name):
                fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # not a font that can be drawn
            continue


def _missing(text: str) -> set[str]:
    there = _drawable(families())
    return {char for char in text if ord(char) not in there}


def label(text: object, limit: int = 40) -> str:
    """Return `text` as matplotlib can draw it: cut at `limit` characters, on one line, no mathtext.

    Characters without a font are shown by their code, with a warning that says what to install.
    """
    safe = show(text, limit)[1:-1]
    missing = _missing(safe)
    if missing:
        _add_new_fonts()
        missing = _missing(safe)
    if missing:
        warnings.warn(NO_FONT, UserWarning, stacklevel=1)  # one place, one text: shown once
        parts = [_code(char) if char in missing else char for char in safe]
        while sum(map(len, parts)) > limit + 10:  # codes are longer than characters
            parts = [*parts[:-2], "…"]
        safe = "".join(parts)
    return safe.replace("$", r"\$")


def entry(name: object, limit: int = 40) -> str:
    """Return `name` as an entry of a legend or at a tick: never empty, and not taken for a hidden one."""
    text = label(name, limit)
    return f" {text}" if text.startswith("_") else text or "''"


def piece_label(piece: object, limit: int = 16) -> str:
    """Return the text of a token as a label: line ends and outer blanks are seen."""
    text = piece if isinstance(piece, str) else str(piece)
    text = text[: limit + 1].replace("\n", "⏎").replace("\t", "⇥")
    inner = text.strip(" ")
    left = len(text) - len(text.lstrip(" "))
    return label("␣" * left + inner + "␣" * (len(text) - left - len(inner)), limit)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
