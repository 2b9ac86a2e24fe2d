"""AnswersView: the turns of a chat as one grid, a column for each initial state, while they are written and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets

from rwkvlab.errors import show
from rwkvlab.measure.comparing.grid import html_grid, html_text
from rwkvlab.measure.comparing.strip import STYLE, legend
from rwkvlab.states.render import NO_FORMULAS
from rwkvlab.widgets.playing.asking import STOPPED, Settings, Turn

_OWN = (
    "{margin:6px 0}",
    "+small{display:block;white-space:pre-wrap}",
    " thead th{font-weight:600;background:var(--jp-layout-color2,#eee)}",
    " tbody th{font-weight:600;min-width:7em;max-width:14em}",
    " td{min-width:13em;max-width:40em;line-height:1.65}",
    " td small{display:block;margin-top:.3em}",
    " .rwkvlab-note{opacity:1;font-style:italic}",
    " .rwkvlab-writes::after{content:'▌';opacity:.6}",
)
_STYLE = STYLE + "".join(f".rwkvlab-answers .rwkvlab-grid{rule}" for rule in _OWN)
WHY = {"length": "(ended by max tokens)", **dict.fromkeys(STOPPED, "(stopped)")}

Rows = list[tuple[str, list[str]]]


class AnswersView(ipywidgets.HTML):
    """Shows `turns` of one chat, oldest first, and below them what is being written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_class("rwkvlab-answers")
        self._known: tuple[tuple[Turn, ...], bool, Rows] = ((), False, [])

    def show(self, turns: Sequence[Turn]) -> None:
        """Show what is ready; nothing where there are no turns."""
        self._known = ((), False, [])
        self.value = grid(turns) if turns else ""

    def write(self, turns: Sequence[Turn], settings: Settings, texts: Sequence[str]) -> None:
        """Show what is ready, and what the columns have written so far of the next turn."""
        turns, columns = tuple(turns), settings.columns
        if self._known[0] != turns or not self._known[1]:
            self._known = (turns, True, placed(turns, columns))
        cells = [f'<span class="rwkvlab-writes">{html_text(text)}</span>' for text in texts]
        cells += ['<span class="rwkvlab-writes"></span>'] * (len(columns) - len(cells))
        rows = [*self._known[2], (settings.question, cells)]
        self.value = html_grid(columns, rows, "", _STYLE)


def grid(turns: Sequence[Turn]) -> str:
    """Return turns of one chat as HTML: one row a question, with marks, and shades where KL was read."""
    last = turns[-1]
    shaded = any("tokens" in vars(turn.result) for turn in turns) and len(last.settings.columns) > 1
    captions = list(dict.fromkeys(turn.result.caption for turn in turns))
    if len(captions) > 1:
        captions = [f"question {at}: {turn.result.caption}" for at, turn in enumerate(turns, 1)]
    notes = [turn.about for turn in turns[-1:] if turn.about]
    key = legend(last.settings.columns[0]) if shaded else ""
    if not shaded and len(last.settings.columns) > 1:
        name = html_text(show(last.settings.columns[0], 120)[1:-1])
        key = f'<div class="rwkvlab-grid {NO_FORMULAS}"><mark>marked</mark>: not in the answer of {name}</div>'
    return html_grid(last.settings.columns, placed(turns, None), "\n".join([*captions, *notes]), _STYLE, key)


def placed(turns: Sequence[Turn], columns: Sequence[str] | None) -> Rows:
    """Return the rows of all turns, each cell in the column that goes on from it today.

    columns: those of a turn that comes next, else None.
    """
    if not turns:
        return []
    names = turns[-1].settings.columns
    places: list[int | None] = list(range(len(names)))
    if columns is not None:
        places = [names.index(name) if name in names else None for name in columns]
        for at, name in enumerate(columns):
            if name not in names and at < len(names) and names[at] not in columns:
                places[at] = at
    rows: Rows = []
    for turn in reversed(turns):
        mine = []
        for label, cells in _rows(turn):
            mine.append((label, ["" if place is None else cells[place] for place in places]))
        rows = mine + rows
        places = [None if place is None else turn.came[place] for place in places]
    return rows


def _rows(turn: Turn) -> Rows:
    """Return a turn's rows as its `Comparison` draws them, with a note where a column was stopped or switched."""
    found = []
    ends = dict(zip(turn.result.table["state"], turn.result.table["finish"], strict=True))
    for at, (label, cells) in enumerate(turn.result.rows()):
        if at == 0:
            cells = [
                _note(note) + cell + _note(WHY.get(ends.get(name, ""), ""))
                for name, cell, note in zip(turn.settings.columns, cells, turn.notes, strict=True)
            ]
        found.append((label, cells))
    return found


def _note(text: str) -> str:
    return f'<small class="rwkvlab-note">{html_text(text)}</small>' if text else ""
