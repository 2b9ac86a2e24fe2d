"""Grids for people: as HTML whose baseline is pinned, or as plain text whose columns stay straight."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

from rwkvlab.errors import show
from rwkvlab.states.columns import cut, pad, text_width
from rwkvlab.states.render import NO_FORMULAS

Rows = Sequence[tuple[str, Sequence[str]]]
ACTING = ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")  # categories of characters that hide, turn or do something
WIDTH, LABEL, CELL = 100, 32, (8, 44)  # columns of a terminal: of a line, of its label, least and most of a cell
STYLE = (
    ".rwkvlab-grid{border-collapse:separate;border-spacing:0;text-align:left}"
    ".rwkvlab-grid th,.rwkvlab-grid td{border:1px solid var(--jp-border-color2,#bbb);border-width:0 1px 1px 0;"
    "padding:4px 8px;text-align:left!important;vertical-align:top;white-space:pre-wrap;max-width:32em;"
    "overflow-wrap:anywhere}"
    ".rwkvlab-grid thead th{border-top-width:1px}.rwkvlab-grid tr>:first-child{border-left-width:1px}"
    ".rwkvlab-grid .pinned{position:sticky;left:0;z-index:1;background:var(--jp-layout-color2,#eee);"
    "color:var(--jp-content-font-color1,#222)}.rwkvlab-grid small{opacity:.75}"
)


def html_grid(columns: Sequence[str], rows: Rows, caption: str = "", style: str = "", key: str = "") -> str:
    """Return a table: a label and one cell a column in each row; the first column is pinned as the baseline.

    Names, labels and the caption are escaped here; the cells, a key that stands above, and more CSS are ready already.
    """
    head = "".join(
        f"<th{_pin(at)}>{html_text(name)}{'' if at else ' <small>baseline</small>'}</th>"
        for at, name in enumerate(columns)
    )
    body = "".join(
        f"<tr><th>{html_text(label)}</th>{''.join(f'<td{_pin(at)}>{cell}</td>' for at, cell in enumerate(cells))}</tr>"
        for label, cells in rows
    )
    table = f'<table class="rwkvlab-grid {NO_FORMULAS}"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody>'
    end = f'</table><small class="{NO_FORMULAS}">{html_text(caption)}</small>'
    return f"<style scoped>{STYLE}{style}</style>{key}{table}{end}"


def html_text(text: str) -> str:
    """Return `text` as HTML that shows it: markup escaped, control and direction characters made visible."""
    return "\n".join(escape(_visible(line)) for line in text.split("\n"))


def text_grid(columns: Sequence[str], rows: Rows) -> str:
    """Return the same grid as plain text; wide (CJK) characters count two, long texts are cut, ends of lines are ⏎."""
    table = [["", *columns], *([label, *texts] for label, texts in rows)]
    cells = [[_plain(text) for text in row] for row in table]
    first = min(LABEL, max(text_width(row[0]) for row in cells))
    share = max(CELL[0], min(CELL[1], (WIDTH - first) // max(1, len(columns)) - 2))
    cells = [[cut(row[0], first), *(cut(text, share) for text in row[1:])] for row in cells]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(pad(text, width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _plain(text: str) -> str:
    return "⏎".join(show(line, 10_000)[1:-1] for line in text.split("\n"))


def _pin(column: int) -> str:
    return ' class="pinned"' if column == 0 else ""


def _visible(line: str) -> str:
    return "".join(char if unicodedata.category(char) not in ACTING else show(char)[1:-1] for char in line)
