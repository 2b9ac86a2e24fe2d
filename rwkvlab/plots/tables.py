"""What a plot asks of a table: its columns, numbers in them, and the unit that each is drawn with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.fonts import label

LONG = 38  # characters of a line beside an axis
LAYERS = 4096  # layers, or heads of a layer, that a map has room for
UNITS = {
    "norm": "Frobenius norm (state units)",
    "largest": "largest singular value (state units)",
    "stable_rank": "stable rank (directions)",
    "effective_rank": "effective rank (directions)",
    "value": "singular value (state units)",
    "energy": "share of the squared norm so far (0 to 1)",
    "att_shift": "norm of the attention shift (activation units)",
    "ffn_shift": "norm of the feed-forward shift (activation units)",
    "frobenius": "Frobenius distance (state units)",
    "relative": "relative distance (of the first state's norm)",
    "cosine": "cosine (-1 to 1)",
    "key_angle": "mean angle of the key subspaces (degrees)",
    "value_angle": "mean angle of the value subspaces (degrees)",
    "rank": "effective rank of the difference (directions)",
    "readout": "read-out (rms over tokens, state units × receptance)",
    "beyond": "distance (multiples of the noise floor)",
    "half_life": "half-life (tokens)",
    "effect": "effect (nats of log-odds)",
    "reverse": "reverse effect (nats of log-odds)",
    "low": "effect, low end of the interval (nats of log-odds)",
    "high": "effect, high end of the interval (nats of log-odds)",
    "reverse_low": "reverse effect, low end of the interval (nats of log-odds)",
    "reverse_high": "reverse effect, high end of the interval (nats of log-odds)",
    "share": "share (1: all of it)",
    "reverse_share": "reverse share (1: all of it)",
    "accuracy": "accuracy (share of answers right)",
    "bits_per_byte": "bits per byte of the text",
    "logprob": "log-probability of the answer (nats)",
    "logodds": "log-odds (nats)",
    "kl": "KL (nats a token)",
    "surprise": "surprise (nats)",
    "surprise_zero": "surprise from the zero start (nats)",
    "surprise_baseline": "surprise under the baseline (nats)",
}
# zero is the middle of their colours even where no value is negative
SIGNED = ("cosine", "effect", "reverse", "low", "high", "reverse_low", "reverse_high", "share", "reverse_share")
SIGNED = (*SIGNED, "logodds")
INFINITE = {"half_life": "not within the text", "relative": "first state is zero", "beyond": "floor is zero"}


def unit(column: str) -> str:
    """Return the label of an axis or a colour bar for a column: what it is and its unit, or its name as it is."""
    if column in UNITS:
        return fill(UNITS[column], LONG)
    if found := re.fullmatch(r"energy_(\d{1,5})", column):
        first = f"first {found[1]} directions" if found[1] != "1" else "first direction"
        return fill(f"share of the squared norm in the {first} (0 to 1)", LONG)
    if column.endswith("_floor") and column[:-6] in UNITS:
        return fill(f"noise floor: {UNITS[column[:-6]]}", LONG)
    return label(column)


def check_table(plot: str, data: Any, columns: Iterable[str], numbers: Iterable[str] = ()) -> pd.DataFrame:
    """Return the columns of a table, and of `numbers` those that are there, as a new one with numbers as floats.

    Infinities stay. Raises ArgError, in the name of `plot`, for what is no table, for columns that are missing or
    twice, for no rows, and for what are no numbers. All but `numbers` may hold anything.
    """
    if not isinstance(data, pd.DataFrame):
        raise ArgError(f"{plot}: need a DataFrame, got {show(type(data).__name__)}")
    columns, numbers = list(columns), list(numbers)
    if missing := [column for column in columns if column not in data.columns]:
        names = ", ".join(show(column)[1:-1] for column in columns)
        raise ArgError(f"{plot}: need columns {names}; {show(missing[0])} is not among them")
    kept = list(dict.fromkeys([*columns, *(column for column in numbers if column in data.columns)]))
    table = data.loc[:, [column in kept for column in data.columns]]
    if table.columns.has_duplicates:
        raise ArgError(f"{plot}: column {show(table.columns[table.columns.duplicated()][0])} is there twice")
    if not len(table):
        raise ArgError(f"{plot}: the table has no rows")
    floats = {}
    for column in (column for column in kept if column in numbers):
        try:
            floats[column] = pd.Series(table[column].to_numpy(dtype=float, na_value=np.nan), index=table.index)
        except (TypeError, ValueError):
            raise ArgError(f"{plot}: column {show(column)}: need numbers, got {show(table[column].iloc[0])}") from None
    return table.assign(**floats).reset_index(drop=True)


def check_places(plot: str, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the table with layers and heads as integers; raises ArgError for what is not one of 0 to 4095."""
    for column in columns:
        numbers = table[column].to_numpy(dtype=float)
        wrong = ~((numbers >= 0) & (numbers < LAYERS) & (numbers == np.floor(numbers)))
        if wrong.any():
            raise ArgError(
                f"{plot}: column {show(column)}: need whole numbers from 0 to {LAYERS - 1}, "
                f"got {show(numbers[wrong][0])}"
            )
    return table.astype(dict.fromkeys(columns, int))


def check_wide(plot: str, data: Any, index: str, value: str) -> pd.DataFrame:
    """Return `value` as one column a (layer, head) and one row a number in the column `index`, infinities as nan.

    Raises ArgError as `check_table` and `check_places`, and where a place has several numbers.
    """
    columns = (index, "layer", "head", value)
    table = check_places(plot, check_table(plot, data, columns, columns), "layer", "head")
    if (twice := table.duplicated([index, "layer", "head"])).any():
        row = table[twice].iloc[0]
        raise ArgError(
            f"{plot}: several rows for {index} {row[index]:g}, layer {row['layer']:.0f}, head {row['head']:.0f}; "
            "choose one text or state"
        )
    table = table.assign(**{value: table[value].where(np.isfinite(table[value]))})
    return table.pivot(index=index, columns=["layer", "head"], values=value).sort_index().sort_index(axis=1)


def series(table: pd.DataFrame, *columns: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the parts of a table, one a combination of values in those of `columns` that are there and differ.

    In order of their first rows, each with its name; "" where nothing differs.
    """
    by = [column for column in columns if column in table.columns and table[column].nunique(dropna=False) > 1]
    if not by:
        return [("", table)]
    return [
        (", ".join(map(str, key)), part) for key, part in table.groupby(by, sort=False, dropna=False, observed=True)
    ]
