"""Comparison: answers from several starts side by side, as a grid, as tables, as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rwkvlab.errors import show
from rwkvlab.measure.comparing.grid import html_grid, text_grid
from rwkvlab.measure.comparing.page import page
from rwkvlab.measure.comparing.spreadsheet import csv_bytes
from rwkvlab.measure.comparing.strip import STYLE, legend, strip_rows
from rwkvlab.measure.comparing.tokens import KEYS, Tick
from rwkvlab.tensorfile import atomic_write


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` returns; shown as a grid in a notebook, as text elsewhere.

    table: one row a (prompt, state, sample): prompt, state (the arm's name; the first is the baseline), sample (from
    0), text, tokens (how many were drawn), logprob (natural, of all of them under the model itself) and finish ("stop",
    "end", "length" …). written: one row a token that was drawn: prompt, state, sample, token (from 0), id, piece and
    same, as in `tokens`. template: the name of the one that was used. settings: the sampling of every arm; sample i has
    seed + i. about: versions and model; starts: one row an arm with what its card says, its norm and its sha256, which
    `save_state` writes too. Until `tokens` is asked for, the model and the states are kept.
    """

    table: pd.DataFrame
    template: str
    settings: Mapping[str, Any]
    written: pd.DataFrame
    about: Mapping[str, str]
    starts: pd.DataFrame
    reader: Callable[..., pd.DataFrame] | None = field(repr=False)

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row a token of a text that was read again, teacher-forced: where do two starts disagree?

        prompt, state, sample; along: "own", what this arm wrote, or "baseline", what the baseline wrote (for the
        baseline itself they are the same); token (from 0), id; piece (the text that the token settles: where tokens cut
        a character, it stands at the last of them); kl: KL(arm ‖ baseline) of their distributions of this token, nats;
        surprise and surprise_baseline: -log p of the token from the arm's start and from the baseline's, nats; same:
        whether the other of the two texts has this token at the aligned place (`difflib` on the ids).

        Made when it is first asked for, or by `compare(…, kl=True)`, with a bar; Ctrl-C leaves it for the next time.
        """
        return self.read_tokens()

    def read_tokens(self, tick: Tick | None = None) -> pd.DataFrame:
        """Return `tokens`, made now unless they are there, with tick(done, total) after each piece, and without a bar.

        What tick raises ends the reading, which begins anew the next time.
        """
        reader = self.reader
        if reader is None or "tokens" in self.__dict__:  # it is let go of below, once there is a result
            return self.__dict__["tokens"]
        self.__dict__["tokens"] = read = reader() if tick is None else reader(tick)
        object.__setattr__(self, "reader", None)
        return read

    @property
    def baseline(self) -> str:
        """The arm that the others are set against."""
        return str(self.starts["state"].iloc[0])

    def to_csv(self, path: str | os.PathLike[str], *, tokens: bool = False, overwrite: bool = True) -> Path:
        """Write `table`, or with tokens=True `tokens`, as CSV in UTF-8 for spreadsheets; returns the path.

        A text that a spreadsheet might take for a formula (it begins with = + - @, wide forms included, after blanks or
        line ends), or that begins with an apostrophe, gets an apostrophe in front; `.str.removeprefix("'")` restores
        it. Read with `pandas.read_csv(path, keep_default_na=False)`. Atomic; raises PathError, SaveError.
        """
        data = csv_bytes(self.tokens if tokens else self.table)
        return atomic_write(path, lambda file: file.write(data), overwrite=overwrite)

    def to_html(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
        """Write one page that needs nothing else, for any browser, light or dark; returns the path.

        Grid, marks, both strips (`tokens`, made now unless it is there), settings and cards; no script, nothing is
        loaded from anywhere. Atomic; raises PathError, SaveError.
        """
        data = self._page().encode("utf-8", "backslashreplace")
        return atomic_write(path, lambda file: file.write(data), overwrite=overwrite)

    def __repr__(self) -> str:
        arms = list(dict.fromkeys(self.table["state"]))
        rows = []
        for label, part in self._parts():
            texts = dict(zip(part["state"], part["text"], strict=True))
            rows.append((label, [texts.get(arm, "") for arm in arms]))
        return f"{text_grid(arms, rows)}\n{show(self.caption, 1000)[1:-1]}"

    def _repr_html_(self) -> str:
        return self._grid(self.__dict__.get("tokens"))

    def _page(self) -> str:
        grid = self._grid(self.tokens)
        return page(list(self.table["prompt"].unique()), grid, self.about, self.starts)

    def _grid(self, tokens: pd.DataFrame | None) -> str:
        """Return the grid as HTML, with the strips where `tokens` is there, else with marks only."""
        arms = list(dict.fromkeys(self.table["state"]))
        key = "" if tokens is None else legend(self.baseline)
        return html_grid(arms, self._rows(tokens), self.caption, STYLE, key)

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return the rows of the grid, for `html_grid`: a label, and one cell an arm as HTML that is ready.

        What differs from the baseline is marked; where `tokens` are there already each token is shaded by its KL.
        """
        return self._rows(self.__dict__.get("tokens"))

    def _rows(self, tokens: pd.DataFrame | None) -> list[tuple[str, list[str]]]:
        arms = list(dict.fromkeys(self.table["state"]))
        read = self.written.assign(along="own") if tokens is None else tokens
        texts = dict(list(read.groupby([*KEYS, "along"], sort=False)))
        return [row for label, part in self._parts() for row in strip_rows(label, part, arms, texts, read.iloc[:0])]

    def _parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the rows of `table` that stand side by side, and their label."""
        many = self.table["sample"].nunique() > 1
        groups = self.table.groupby(["prompt", "sample"], sort=False)
        return [(f"{prompt} [{sample}]" if many else f"{prompt}", part) for (prompt, sample), part in groups]

    @property
    def caption(self) -> str:
        """The template and the sampling, in words."""
        sampling = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"template {self.template}, {sampling}; every state with the same"
