"""Summarise: the rows of an experiment as one row a task and state, each mean with its interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.interval import interval

NEEDED = ("task", "state", "right", "logprob")


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (task, state), in the order of the rows, with 95 % intervals over examples (`interval`).

    rows: of `Experiment.run` or `controlled`. Columns: task, state, examples, and each with _low and _high: accuracy
    (share that is right, 0 to 1), logprob (mean natural log-probability of a right answer), bits_per_byte (all bits
    over all bytes; the interval is that of the ratio by linearisation) and perplexity (e to minus the mean logprob of
    a whole last word, as for LAMBADA; NaN for other kinds). NaN stands where a kind of task has no such thing, and for
    the ends of an interval from one example. Raises ArgError for missing columns, and for text among the numbers.
    """
    missing = [name for name in NEEDED if not isinstance(rows, pd.DataFrame) or name not in rows.columns]
    if missing:
        raise ArgError(f"rows: need the table of Experiment.run, with {', '.join(NEEDED)}; no {show(missing[0])} there")
    if not rows.columns.is_unique:
        raise ArgError(f"rows: two columns are called {show(rows.columns[rows.columns.duplicated()][0])}; keep one")
    rows = rows.assign(**{name: _numbers(rows, name) for name in ("right", "logprob", "bytes") if name in rows})
    found = []
    for (task, state), part in rows.groupby(["task", "state"], sort=False, dropna=False):
        row: dict[str, Any] = {"task": task, "state": state, "examples": len(part)}
        row |= _mean("accuracy", part["right"])
        logprob = _mean("logprob", part["logprob"])
        row |= logprob | _bits(part)
        words = "kind" in part and bool((part["kind"] == "last word").all())
        ends = {"": "", "_low": "_high", "_high": "_low"}
        row |= {f"perplexity{e}": _exp(-logprob[f"logprob{o}"]) if words else math.nan for e, o in ends.items()}
        found.append(row)
    names = ["task", "state", "examples"]
    names += [f"{name}{end}" for name in ("accuracy", "logprob", "bits_per_byte", "perplexity") for end in ENDS]
    return pd.DataFrame(found, columns=names)


ENDS = ("", "_low", "_high")


def _exp(value: float) -> float:
    return math.exp(value) if not value > 700 else math.inf


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as numbers, nan where nothing stands; ArgError for text, and for bytes that are none."""
    try:
        values = rows[column].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ArgError(f"rows: {column}: need numbers, got {show(error)}; read the table with its types") from error
    fits = {"right": np.isin(values, (0, 1)), "bytes": values > 0}.get(column, True) | np.isnan(values)
    if not fits.all():
        need = "numbers above 0" if column == "bytes" else "True or False"
        raise ArgError(f"rows: {column}: need {need}, got {values[~fits][0]:g}; give the rows as they came")
    return values


def _mean(name: str, values: np.ndarray | pd.Series) -> dict[str, float]:
    values = np.asarray(values)[~np.isnan(values)]
    if not len(values):
        return {f"{name}{end}": math.nan for end in ENDS}
    ends = interval(values, outcomes=name == "accuracy")
    return dict(zip((f"{name}{end}" for end in ENDS), (float(values.mean()), *ends), strict=True))


def _bits(rows: pd.DataFrame) -> dict[str, float]:
    """Return bits per byte over all rows: a ratio of two sums, its interval that of its linear part in each row."""
    if "bytes" not in rows:
        return _mean("bits_per_byte", np.empty(0))
    kept = rows[rows["bytes"].notna() & rows["logprob"].notna()]
    if kept.empty:
        return _mean("bits_per_byte", np.empty(0))
    sizes = kept["bytes"].to_numpy(dtype=float)
    bits = -kept["logprob"].to_numpy(dtype=float) / math.log(2)
    ratio = bits.sum() / sizes.sum()
    if not np.isfinite(ratio):
        return _mean("bits_per_byte", np.array([ratio]))
    return _mean("bits_per_byte", ratio + (bits - ratio * sizes) / sizes.mean())
