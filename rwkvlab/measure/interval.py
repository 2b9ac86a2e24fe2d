"""Intervals: how far a mean over examples, and over seeds, may be off."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from rwkvlab.errors import ArgError
from rwkvlab.shapes import check_range

DRAWS = 1000


def interval(
    values: Any, *, outcomes: bool = False, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return (low, high), the confidence interval of the mean of `values`.

    values: [N], one number an example, or [S,N], the same examples under S seeds. Of `outcomes` (1 right, 0 wrong)
    under one seed it is Wilson's interval (1927); else a percentile bootstrap with `draws` seeded draws, of examples,
    and of seeds too where there are several: so seeds and examples both count; for outcomes never narrower than
    Wilson's of one seed, since a bootstrap of nothing but ones has no width. A single value, or one that is not
    finite, gives (nan, nan). Raises ArgError for other shapes, an empty array, or outcomes other than 0 and 1.
    """
    table = np.asarray(values, dtype=float)
    check_range("level", level, 0.5, 0.9999)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ArgError(f"values: need a non-empty array [N] or [S,N], got shape {list(table.shape)}")
    table = np.atleast_2d(table)
    if not np.isfinite(table).all() or table.size == 1:
        return float("nan"), float("nan")
    if outcomes and not np.isin(table, (0.0, 1.0)).all():
        raise ArgError("values: outcomes are 0 or 1; leave outcomes=True out for other numbers")
    seeds, examples = table.shape
    least = wilson(float(table.mean()) * examples, examples, level) if outcomes else None
    if least and seeds == 1:
        return least
    means = resamples(examples, draws, seed) @ table.T / examples  # [draws,S]
    if seeds > 1:
        means = (means * resamples(seeds, draws, seed + 1)).sum(axis=1, keepdims=True) / seeds
    low, high = map(float, np.quantile(means[:, 0], [(1 - level) / 2, (1 + level) / 2]))
    return (min(low, least[0]), max(high, least[1])) if least else (low, high)


@lru_cache(maxsize=4)
def resamples(of: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return how often each of `of` things is drawn in each bootstrap sample, [draws, of]; the same for one seed."""
    drawn = np.random.default_rng(seed).multinomial(of, np.full(of, 1 / of), size=draws)
    drawn.flags.writeable = False
    return drawn


def wilson(right: float, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of `right` in `of` trials."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = right / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / of + spread / (4 * of)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
