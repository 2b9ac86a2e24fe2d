"""Grids of texts for people: as HTML with what differs marked, or as plain text whose columns stay straight."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from html import escape

from rwkvlab.errors import show
from rwkvlab.states.columns import cut, pad, text_width
from rwkvlab.states.render import NO_FORMULAS

Rows = Sequence[tuple[str, Sequence[str]]]
WORD = re.compile(r"\s+|[^\W\d_]+|\d+|.", re.DOTALL)
WIDE_SCRIPTS = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")
ACTING = ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")  # categories of characters that hide, turn or do something
COMPARED = 500  # words of a text that are compared with the reference
WIDTH, LABEL, CELL = 100, 32, (8, 44)  # columns of a terminal: of a line, of its label, least and most of a cell
STYLE = (
    "<style scoped>.rwkvlab-grid{border-collapse:collapse;text-align:left}"
    ".rwkvlab-grid th,.rwkvlab-grid td{border:1px solid var(--jp-border-color2,#bbb);padding:4px 8px;"
    "text-align:left!important;vertical-align:top;white-space:pre-wrap;max-width:32em;overflow-wrap:anywhere}"
    ".rwkvlab-grid .pinned{position:sticky;left:0;background:var(--jp-layout-color2,#eee)}"
    ".rwkvlab-grid mark{background:#ffd54f;color:#000}</style>"
)


def html_grid(columns: Sequence[str], rows: Rows, caption: str = "") -> str:
    """Return a table: a label and one text a column in each row; the first column is pinned as the reference.

    Words of the other columns that differ from it stand in <mark>. Everything given is escaped.
    """
    head = "".join(f"<th{_pin(at)}>{_html(name)}</th>" for at, name in enumerate(columns))
    body = "".join(
        f"<tr><th>{_html(label)}</th>"
        + "".join(
            f"<td{_pin(at)}>{_html(text) if at == 0 else _marked(texts[0], text)}</td>" for at, text in enumerate(texts)
        )
        + "</tr>"
        for label, texts in rows
    )
    table = f'<table class="rwkvlab-grid {NO_FORMULAS}"><thead><tr><th></th>{head}</tr></thead>'
    return f'{STYLE}{table}<tbody>{body}</tbody></table><small class="{NO_FORMULAS}">{_html(caption)}</small>'


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


def _html(text: str) -> str:
    """Return `text` as HTML that shows it: markup escaped, control and direction characters made visible."""
    return "\n".join(escape(_visible(line)) for line in text.split("\n"))


def _visible(line: str) -> str:
    return "".join(char if unicodedata.category(char) not in ACTING else show(char)[1:-1] for char in line)


def _words(text: str) -> list[str]:
    """Cut into words, numbers, white space and signs; each letter of a script without blanks is a word."""
    return [part for word in WORD.findall(text) for part in WIDE_SCRIPTS.split(word) if part]


def _marked(reference: str, text: str) -> str:
    one, two = _words(reference)[:COMPARED], _words(text)
    kept = SequenceMatcher(None, one, two[:COMPARED], autojunk=False).get_matching_blocks()
    same = {at for block in kept for at in range(block.b, block.b + block.size)}
    return "".join(_runs((word, at in same or word.isspace()) for at, word in enumerate(two)))


def _runs(words: Iterable[tuple[str, bool]]) -> Iterable[str]:
    run, state = "", True
    for word, same in [*words, ("", True)]:
        if run and same != state:
            yield _html(run) if state else f"<mark>{_html(run)}</mark>"
            run = ""
        run, state = run + word, same
    if run:
        yield _html(run)
