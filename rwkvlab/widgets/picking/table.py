"""Table: a list of rows to choose one from, greyed where they cannot be chosen; fast with thousands of rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from rwkvlab.measure.comparing.grid import html_text
from rwkvlab.states.columns import text_width
from rwkvlab.states.render import NO_FORMULAS

HERE = Path(__file__).parent
WIDEST = 44  # letters that a column asks for, at most


class Table(anywidget.AnyWidget):
    """Rows of texts; its trait `chosen` is the index of the chosen row, -1 where none is.

    What a person clicks goes to the functions given to `on_choose`, with the index; `chosen` changes only when Python
    sets it, so that a row which cannot be used never looks chosen. `shown` lists the rows that a filter leaves, `sort`
    is the name of a column, "-" before it for downwards, "" for the order given.
    """

    _esm = (HERE / "table.js").read_text("utf-8")
    _css = (HERE / "table.css").read_text("utf-8")
    columns: Any = traitlets.List(help="Of each column: name, number (whether it is one), width (in letters).").tag(
        sync=True
    )
    rows: Any = traitlets.List(help="Of each row: cells, off (why it cannot be chosen, or ''), brief, first.").tag(
        sync=True
    )
    shown: Any = traitlets.List(help="The indices of the rows that are shown.").tag(sync=True)
    chosen = traitlets.Int(-1, help="The index of the chosen row.").tag(sync=True)
    sort = traitlets.Unicode("", help="The column that the rows are sorted by.").tag(sync=True)
    label = traitlets.Unicode("", help="What the table is, for screen readers.").tag(sync=True)
    height = traitlets.Int(9, help="How many rows are in sight.").tag(sync=True)
    version = traitlets.Int(0, help="Counts the fills: a click on an older list is ignored.").tag(sync=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_class("rwkvlab-table-widget")
        self._told: list[Callable[[int], object]] = []
        self.on_msg(self._on_message)

    def fill(self, columns: Sequence[tuple[str, bool]], rows: Sequence[tuple[Sequence[str], str]], chosen: int) -> None:
        """Show other rows: (name, whether it holds numbers) of each column, (cells, why off) of each row.

        The first row stays first, however the table is sorted. Columns in which nothing is said are left out, but for
        the first.
        """
        told = [cells for cells, off in rows if not off]
        kept = [at for at in range(len(columns)) if at == 0 or any(cells[at] for cells in told)]
        if len(kept) == 1 and len(told) < len(rows):
            kept.append(len(columns) - 1)  # a place for the reasons
        widths = [max([text_width(columns[at][0]), *(text_width(cells[at]) for cells, _ in rows)]) for at in kept]
        with self.hold_sync():
            self.version += 1
            self.columns = [
                {"name": columns[at][0], "number": columns[at][1], "width": min(width, WIDEST)}
                for at, width in zip(kept, widths, strict=True)
            ]
            self.rows = [
                {"cells": [cells[at] for at in kept], "off": off, "brief": brief(off), "first": index == 0}
                for index, (cells, off) in enumerate(rows)
            ]
            self.shown = list(range(len(rows)))
            self.chosen = chosen

    def on_choose(self, tell: Callable[[int], object]) -> None:
        """Call `tell(index)` when a person chooses a row, one that is off too: it is for Python to say why not."""
        self._told.append(tell)

    def _on_message(self, _: object, content: Any, __: object) -> None:
        index = content.get("choose") if isinstance(content, dict) else None
        if type(index) is int and 0 <= index < len(self.rows) and content.get("version") == self.version:
            for tell in self._told:
                tell(index)

    def html(self, limit: int = 50) -> str:
        """Return the shown rows as HTML, for pages without a kernel: at most `limit`, the others are counted."""
        head = "".join(f"<th>{html_text(column['name'])}</th>" for column in self.columns)
        body = []
        for index in self.shown[:limit]:
            row = self.rows[index]
            cells = [f'<td style="text-align:left">{html_text(text)}</td>' for text in row["cells"]]
            if row["off"]:
                wide = f'<td style="text-align:left" colspan="{max(1, len(cells) - 1)}">{html_text(row["off"])}</td>'
                cells = [cells[0], wide]
            look = ' style="opacity:.6"' if row["off"] else ""
            look = ' style="font-weight:bold" aria-selected="true"' if index == self.chosen else look
            body.append(f"<tr{look}>{''.join(cells)}</tr>")
        left = len(self.shown) - limit
        more = f"<div>… {left:,} more</div>" if left > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        return f'<div class="{NO_FORMULAS}">{table}{more}</div>'


def brief(reason: str) -> str:
    """Return a reason without the name of the file in front."""
    return re.sub(r"^'[^']*': (?=.)", "", reason)
