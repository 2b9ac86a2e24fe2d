"""Verification: what `verify` found, as a plain-text report that can be pasted, as HTML and as JSON."""

from __future__ import annotations

import html
import math
import platform
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rwkvlab.errors import printable, show
from rwkvlab.measure.verifying.findings import Orientation
from rwkvlab.model.engine import Model
from rwkvlab.states.state import State

SHOWN = 8  # notes of a state
WIDTH = 96  # columns of a line of findings


@dataclass(frozen=True, eq=False)
class Verification:
    """What `verify` found; printed, a report without any folder's name in it, to be pasted into an issue.

    table: one row a start ("zero", "as stored", "transposed", "random 0" …): loss and se of it, change (against zero,
    paired) and change_se, kl (from zero's distribution of the next token), all in nats a token and means over texts,
    and tokens; empty without a state. logits: one row a (start, dtype) that was compared with the official package:
    start, ours, largest, rms (in standard deviations of the logits), same_top, agrees; empty where none was.
    findings are sentences, problems those among them that speak against the files, or do not speak for the state, and
    doubts those of the problems that leave it open, for want of texts or of random states.
    orientation: "as stored", "transposed" (the state is the other way round) or "undecided". about: versions, model,
    state, texts, as strings.
    """

    table: pd.DataFrame
    logits: pd.DataFrame
    findings: tuple[str, ...]
    problems: tuple[str, ...]
    orientation: Orientation
    about: Mapping[str, Any]
    doubts: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the files, and the state, if one was given, was seen to help."""
        return not self.problems

    @property
    def undecided(self) -> bool:
        """Whether nothing speaks against the files, but the state was not surely seen to help either."""
        return bool(self.problems) and set(self.problems) <= set(self.doubts)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; NaN becomes None."""
        tables = {
            name: [{key: _plain(value) for key, value in row.items()} for row in table.to_dict("records")]
            for name, table in (("table", self.table), ("logits", self.logits))
        }
        said = {"findings": list(self.findings), "problems": list(self.problems), "orientation": self.orientation}
        about = {key: list(value) if isinstance(value, tuple) else value for key, value in self.about.items()}
        return {"ok": self.ok, "undecided": self.undecided, **about, **tables, **said}

    def __repr__(self) -> str:
        lines = []
        for key, value in self.about.items():
            for at, item in enumerate(value[:SHOWN] if isinstance(value, tuple) else (value,)):
                lines.append(f"{'' if at else key + ':':<9} {item}")
            if isinstance(value, tuple) and len(value) > SHOWN:
                lines.append(f"{'':<9} … {len(value) - SHOWN} more")
        for table in (self.logits, self.table):
            if len(table):
                rows = [(str(row[0]), [_cell(value) for value in row[1:]]) for row in table.itertuples(index=False)]
                lines += ["", _grid(table, rows)]
        lines.append("")
        for text in self.findings:
            mark = "? " if text in self.doubts else "! " if text in self.problems else "- "
            lines += textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent="  ")
        no = "undecided: see the lines with ?" if self.undecided else "not ok: see the lines with !"
        lines.append("ok" if self.ok else no)
        return printable("\n".join(lines))

    def _repr_html_(self) -> str:
        return f'<pre style="white-space:pre;overflow-x:auto">{html.escape(repr(self))}</pre>'


def versions(official: str) -> str:
    """Return the versions that a report needs; official is that of PyPI's rwkv, "" where there is none."""
    try:
        ours = version("rwkvlab")
    except PackageNotFoundError:
        ours = "not installed"
    parts = [f"rwkvlab {ours}", f"torch {torch.__version__}", f"rwkv {official or 'not installed'}"]
    return ", ".join([*parts, f"Python {platform.python_version()}", f"{platform.system()} {platform.machine()}"])


def describe_model(model: Model, path: Path | None) -> str:
    """Return what a report says about a model: its file or name, geometry, fingerprint, dtype and device."""
    name = show(path.name or path.absolute().name) if path is not None else show(model.card.name)
    dtype, device = str(model.dtype).removeprefix("torch."), model.device.type
    where = f"{device} ({torch.cuda.get_device_name(model.device)})" if device == "cuda" else device
    print_ = model.card.fingerprint[:12]
    return f"{name}, {model.dims}, vocabulary {model.dims.vocab}, fingerprint {print_}, {dtype} on {where}"


def describe_state(state: State) -> dict[str, Any]:
    """Return what a report says about a state, by the name of the line."""
    card = state.card
    parts = [show(card.name or "no name"), *([f"from {show(card.source, 160)}"] if card.source else [])]
    parts += [f"recipe {show(card.recipe, 160)}"] if card.recipe else []
    parts += [] if not state.has_shifts else ["with token-shifts"]
    notes = tuple(show(note, 300)[1:-1] for note in card.notes)
    return {"state": ", ".join(parts)} | ({"notes": notes} if notes else {})


def _grid(table: pd.DataFrame, rows: list[tuple[str, list[str]]]) -> str:
    first, *columns = map(str, table.columns)
    widths = [max(len(column), *(len(cells[at]) for _, cells in rows)) for at, column in enumerate(columns)]
    left = max(len(first), *(len(label) for label, _ in rows))
    lines = [(first, columns), *rows]
    return "\n".join(
        "  ".join([label.ljust(left), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for label, cells in lines
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if not isinstance(value, float):
        return f"{value}"
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1e-3 and value else f"{value:.4f}"


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
