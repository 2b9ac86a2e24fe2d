"""Strips: a text token by token for HTML, shaded by KL on one fixed scale, with what differs marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import pandas as pd

from rwkvlab.measure.comparing.grid import html_text
from rwkvlab.states.render import NO_FORMULAS

EDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # nats; a token's level is how many of these its KL has reached
EMPTY = "▯"  # stands for a token that has no text
# shade, and the height of the bar below; the shades are alike on white and on black
_LEVELS = ((0.0, 0), (0.12, 1), (0.22, 2), (0.34, 3), (0.46, 4), (0.58, 5), (0.72, 6))
STYLE = (
    ".rwkvlab-grid mark{background:#ffd54f;color:#000}"
    ".rwkvlab-strip{line-height:1.75}.rwkvlab-key{margin:.5em 0}.rwkvlab-key span{margin:0 .2em}"
    ".rwkvlab-strip span{padding:.1em 0;-webkit-print-color-adjust:exact;"
    "print-color-adjust:exact;-webkit-box-decoration-break:clone;box-decoration-break:clone}"
    ".rwkvlab-strip mark{background:none;color:inherit;text-decoration:overline 2px #e69f00}"
    + "".join(
        f".rwkvlab-strip .k{level}{{background:rgba(40,120,220,{shade});box-shadow:inset 0 -{bar}px rgb(40,120,220)}}"
        for level, (shade, bar) in enumerate(_LEVELS)
    )
)


class Piece(NamedTuple):
    """Some text of one token, or of several that share a character, as it is shown.

    same: as in the baseline's answer. kl: nats, the largest of its tokens; None where nothing was read. note: numbers
    only, shown where the pointer rests.
    """

    text: str
    same: bool = True
    kl: float | None = None
    note: str = ""


def as_pieces(rows: pd.DataFrame) -> list[Piece]:
    """Return the pieces of one text; rows are those of one text in `written` or `Comparison.tokens`.

    Tokens that only begin a character go together with the one that ends it.
    """
    found: list[Piece] = []
    held: list[tuple[bool, float | None, str]] = []
    read = "kl" in rows
    for row in rows.to_dict("records"):
        held.append((bool(row["same"]), row["kl"] if read else None, _note(row) if read else ""))
        if row["piece"]:
            found.append(_join(row["piece"], held))
            held = []
    if held:
        found.append(_join(EMPTY, held))
    return found


def strip(some: Sequence[Piece], *, plain: bool = False) -> str:
    """Return the pieces as HTML: one <span> each where they have a KL, what differs in <mark>; all text is escaped.

    Ends of lines are shown as ⏎, tabs as ⇥; line ends at the end of the text break no line. plain: nothing is shaded or
    marked.
    """
    last = max((at for at, piece in enumerate(some) if piece.text.strip()), default=-1)
    body = "".join(
        text if same or plain else f"<mark>{text}</mark>"
        for same, text in _runs((piece.same, _html(piece, at - last, plain)) for at, piece in enumerate(some))
    )
    shaded = not plain and any(piece.kl is not None for piece in some)
    return f'<div class="rwkvlab-strip">{body}</div>' if shaded else f"<div>{body}</div>" if some else ""


def summary(rows: pd.DataFrame, finish: str = "", *, plain: bool = False) -> str:
    """Return the numbers of one text in words, for everyone who sees no shades; plain: without KL."""
    text = f"{len(rows)} token{'' if len(rows) == 1 else 's'}" + (f", {finish}" if finish else "")
    if plain or "kl" not in rows or not len(rows):
        return text
    top = int(rows["kl"].to_numpy().argmax())
    return f"{text}; KL {rows['kl'].sum():.3g} nats, largest {rows['kl'].iloc[top]:.3g} at token {top}"


def legend(baseline: str) -> str:
    """Return what shades and marks mean, as HTML."""
    marks = [f"&lt; {EDGES[0]:g}", *(f"{a:g}–{b:g}" for a, b in pairwise(EDGES)), f"≥ {EDGES[-1]:g}"]
    keys = " ".join(f'<span class="k{level}"> {mark} </span>' for level, mark in enumerate(marks))
    name = html_text(baseline)
    return (
        f'<div class="rwkvlab-grid rwkvlab-strip rwkvlab-key {NO_FORMULAS}">KL(start ‖ {name}) at each token, nats: '
        f"{keys}<br><mark>overlined</mark>: tokens that the other answer (of {name}, or of the start) does not "
        "have; ⏎: end of a line, ⇥: tab; the numbers of a token show where the pointer rests</div>"
    )


def strip_rows(
    label: str, part: pd.DataFrame, arms: Sequence[str], texts: Mapping[Any, pd.DataFrame], none: pd.DataFrame
) -> list[tuple[str, list[str]]]:
    """Return rows of a grid for one prompt and sample: what each arm wrote, and the baseline's answer from each start.

    part: the rows of `Comparison.table`. texts: rows of tokens by (prompt, arm, sample, along); none: no such rows. The
    second row is there only where texts were read and some arm wrote something else than the baseline.
    """
    read, baseline = "kl" in none, arms[0]
    prompt, sample = part["prompt"].iloc[0], part["sample"].iloc[0]
    finish = dict(zip(part["state"], part["finish"], strict=True))
    own = {arm: texts.get((prompt, arm, sample, "own"), none) for arm in finish}
    first, second = dict.fromkeys(arms, ""), dict.fromkeys(arms, "")
    for arm, rows in own.items():
        plain = arm == baseline
        told = summary(rows, finish[arm], plain=plain) if read or not len(rows) else ""
        first[arm] = strip(as_pieces(rows), plain=plain) + _small(told)
    for arm in own if read and len(own[baseline]) else ():
        rows = texts.get((prompt, arm, sample, "baseline"), none)
        if own[arm]["id"].tolist() != rows["id"].tolist():
            second[arm] = strip(as_pieces(rows)) + _small(summary(rows))
    if not any(second.values()):
        return [(label, list(first.values()))]
    second = {arm: cell or _small("the same answer: as above" if arm in own else "") for arm, cell in second.items()}
    second[baseline] = _small("this answer, read from the other starts →")
    return [(label, list(first.values())), ("", list(second.values()))]


def _small(text: str) -> str:
    return f"<small>{html_text(text)}</small>" if text else ""


def _join(text: str, held: Sequence[tuple[bool, float | None, str]]) -> Piece:
    kls = [kl for _, kl, _ in held if kl is not None]
    note = (f"{len(held)} tokens: " if len(held) > 1 else "") + " | ".join(note for _, _, note in held)
    return Piece(text, all(same for same, _, _ in held), max(kls) if kls else None, note if kls else "")


def _note(row: Mapping[Any, Any]) -> str:
    numbers = f"KL {row['kl']:.3g} nats, surprise {row['surprise']:.3g}, baseline {row['surprise_baseline']:.3g}"
    return f"token {row['token']}, id {row['id']}: {numbers}"


def _html(piece: Piece, beyond: int, plain: bool) -> str:
    """Return one piece as HTML; beyond tells how far behind the last piece with a visible character it stands."""
    inner = piece.text if beyond < 0 else piece.text.rstrip("\n") if beyond == 0 else ""
    text = html_text((inner.replace("\n", "⏎\n") + piece.text[len(inner) :].replace("\n", "⏎")).replace("\t", "⇥"))
    if piece.kl is None or plain:
        return text
    level = sum(piece.kl >= edge for edge in EDGES)
    return f'<span class="k{level}" title="{piece.note}">{text}</span>'


def _runs(items: Iterable[tuple[bool, str]]) -> Iterable[tuple[bool, str]]:
    for same, run in groupby(items, key=lambda item: item[0]):
        yield same, "".join(text for _, text in run)
