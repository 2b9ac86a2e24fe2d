"""Columns of plain text that stay straight: wide (CJK) characters count two, combining ones none."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def text_width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return sum(map(_char_width, text))


def pad(text: str, width: int) -> str:
    """Return `text` with blanks up to `width` columns of a terminal."""
    return text + " " * (width - text_width(text))


def cut(text: str, width: int) -> str:
    """Return `text` within `width` columns of a terminal; what does not fit is replaced by …"""
    if text_width(text) <= width:
        return text
    taken = 0
    for at, char in enumerate(text):
        taken += _char_width(char)
        if taken > width - 1:
            return text[:at] + "…"
    return text


def straight(rows: Sequence[Sequence[str]], limits: Sequence[int]) -> list[str]:
    """Return each row as a line, its cells cut at `limits` columns and padded to the widest of their column."""
    cells = [[cut(text, limit) for text, limit in zip(row, limits, strict=True)] for row in rows]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in cells]


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
