"""Intervals: how far a mean over examples, and over seeds, may be off."""

from __future__ import annotations

from typing import Any

import numpy as np

from rwkvlab.errors import ArgError
from rwkvlab.shapes import check_range

DRAWS = 1000


def interval(values: Any, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Return (low, high), the confidence interval of the mean of `values`.

    values: [N], one number an example, or [S,N], the same examples under S seeds. 0/1 outcomes of one seed get Wilson's
    interval (1927), all else a percentile bootstrap with `draws` seeded draws, of examples, and of seeds too where
    there are several: so seeds and examples both count. A single value, or one that is not finite, gives (nan, nan).
    Raises ArgError for other shapes or an empty array.
    """
    table = np.asarray(values, dtype=float)
    check_range("level", level, 0.5, 0.9999)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ArgError(f"values: need a non-empty array [N] or [S,N], got shape {list(table.shape)}")
    table = np.atleast_2d(table)
    if not np.isfinite(table).all() or table.size == 1:
        return float("nan"), float("nan")
    if len(table) == 1 and np.isin(table, (0.0, 1.0)).all():
        return wilson(int(table.sum()), table.size, level)
    seeds, examples = table.shape
    rng = np.random.default_rng(seed)
    chosen = rng.multinomial(examples, np.full(examples, 1 / examples), size=draws)  # [draws,N]: how often each
    means = chosen @ table.T / examples  # [draws,S]
    if seeds > 1:
        means = (means * rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)).sum(
            axis=1, keepdims=True
        ) / seeds
    low, high = np.quantile(means[:, 0], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(right: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of `right` in `of` trials."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = right / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / of + spread / (4 * of)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
