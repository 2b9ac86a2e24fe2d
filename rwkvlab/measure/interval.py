"""Intervals: how far a mean over examples, and over seeds, may be off."""

from __future__ import annotations

from typing import Any

import numpy as np

from rwkvlab.errors import ArgError, show
from rwkvlab.shapes import check_range


def interval(values: Any, *, outcomes: bool = False, level: float = 0.95) -> tuple[float, float]:
    """Return (low, high), the confidence interval of the mean of `values`.

    values: [N], one number an example, or [S,N], the same examples under S seeds. It is mean ± t √v, where v is the
    variance of the mean when examples and seeds are both drawn at random (two-way random effects): with v_n and v_s the
    squared standard errors of the mean of the N examples' means and of the S seeds' means, and v_e that of what is
    left over in the table, v = max(v_s + v_n - v_e, v_s, v_n), since v_s and v_n each hold v_e once. t is Student's,
    with v² / (v_s² / (S - 1) + v_n² / (N - 1)) degrees of freedom (Satterthwaite 1946, Welch 1947). For [N] this is
    the common t interval. So few seeds give a wide interval, whatever the number of examples; its ends
    may lie beyond what the values themselves can be.

    Of `outcomes` (1 right, 0 wrong) under one seed it is Wilson's interval (1927) instead; under several it is never
    narrower than Wilson's of one seed, as equal outcomes have no variance, and within 0 and 1. A single value, or one
    that is not finite, gives (nan, nan). Raises ArgError for other shapes, what is no number, an empty array, or
    outcomes other than 0 and 1.
    """
    check_range("level", level, 0.5, 0.9999)
    try:
        table = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ArgError(f"values: need numbers, [N] or [S,N] with rows of one length, got {show(values, 40)}") from None
    if table.ndim not in (1, 2) or table.size == 0:
        raise ArgError(f"values: need a non-empty array [N] or [S,N], got shape {list(table.shape)}")
    table = np.atleast_2d(table)
    if not np.isfinite(table).all() or table.size == 1:
        return float("nan"), float("nan")
    if outcomes and not np.isin(table, (0.0, 1.0)).all():
        raise ArgError("values: outcomes are 0 or 1; leave outcomes=True out for other numbers")
    examples = table.shape[1]
    least = wilson(float(table.mean()) * examples, examples, level) if outcomes else None
    if least and len(table) == 1:
        return least
    (low,), (high,) = _ends(table[None], level)
    if least:
        return max(0.0, min(float(low), least[0])), min(1.0, max(float(high), least[1]))
    return float(low), float(high)


def intervals(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) [P], what `interval` gives for every row of values [P,N] that are no outcomes, at once."""
    return _ends(np.asarray(values, dtype=float)[:, None], level)


def _ends(tables: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) [P] of the means of tables [P,S,N]; nan where a table is one value or not finite."""
    from scipy.special import stdtrit

    seeds, examples = tables.shape[1:]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean = tables.mean(axis=(1, 2))
        by_example, by_seed = tables.mean(axis=1), tables.mean(axis=2)  # [P,N] [P,S]
        of_examples = by_example.var(axis=1, ddof=1) / examples if examples > 1 else np.zeros(len(tables))
        of_seeds = by_seed.var(axis=1, ddof=1) / seeds if seeds > 1 else np.zeros(len(tables))
        rest = np.zeros(len(tables))
        if seeds > 1 and examples > 1:
            left = tables - by_example[:, None] - by_seed[:, :, None] + mean[:, None, None]
            rest = np.square(left).sum(axis=(1, 2)) / ((seeds - 1) * (examples - 1) * seeds * examples)
        total = np.maximum(of_seeds + of_examples - rest, np.maximum(of_seeds, of_examples))
        shares = np.stack((of_seeds, of_examples)) / total  # at most 1: squares of them neither vanish nor overflow
        freedom = 1 / (np.square(shares) / np.maximum([[seeds - 1], [examples - 1]], 1)).sum(axis=0)
        half = np.where(total > 0, stdtrit(freedom, (1 + level) / 2) * np.sqrt(total), 0 * total)
        half[~np.isfinite(half) | (seeds * examples == 1)] = np.nan
        return mean - half, mean + half


def wilson(right: float, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of `right` in `of` trials; from 0 at none right, to 1 at all."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = right / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / of + spread / (4 * of)) ** 0.5
    return (0.0 if right == 0 else max(0.0, middle - half)), (1.0 if right == of else min(1.0, middle + half))
