"""The smallest set of heads that carries the difference between two states: chosen greedily, beside random sets."""

from __future__ import annotations

import warnings
from itertools import chain, combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rwkvlab.errors import ArgError
from rwkvlab.measure.interval import intervals
from rwkvlab.measure.patching.metric import Asked, ask
from rwkvlab.measure.patching.patch import NOISE, places_of, share
from rwkvlab.measure.patching.starts import as_start, judged, no_place
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

NAME = "smallest_set"


def smallest_set(
    model: Model,
    prompt: Any,
    base: State | None,
    donor: State | None,
    *,
    metric: Any = None,
    sets: int = 20,
    until: float | None = 0.9,
    most: int | None = None,
    candidates: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Add the donor's heads to the base one by one, each time the one that gains most, until they carry the effect.

    prompt and metric are those of `patch_map`. The distinct prompts are split in halves, seeded (a repeated one stays
    on its side): heads are chosen on one and every number is reported on the other, so that what was picked by chance
    does not look like an effect; a single distinct prompt serves for both, with a warning. until: stop at this share of
    the whole way, on the half that chooses (None: never). most: stop at this many heads. candidates: only these many
    heads with the largest effect alone are tried. sets: how many random sets of the same size stand beside, seeded: no
    set twice, of the same candidates; all sets of a size where there are not more than this.

    Returns one row a size: size (from 1), layer, head (the one added), effect (nats gained by the base with all heads
    so far from the donor, mean over prompts), share (of the whole way, shifts included; above 1 is possible), random
    (the mean effect of the random sets of this size), random_low, random_high (95 % of these sets lie between) and
    random_sets (how many they are). `attrs` holds whole, whole_low, whole_high, prompts (of the half reported), given
    (all of them), chosen_on (prompts of the half that chose) and held_out (False for a single distinct prompt).

    A greedy choice is not the best one: heads interact, one that does nothing alone may be needed beside another, and
    the order tells when a head was added, not how much it matters. Raises ArgError as `patch_map` does, and where the
    donor is not above the base in this metric by 0.01.
    """
    start, end = as_start(model, "base", base), as_start(model, "donor", donor)
    heads, labels = places_of(model.dims, "head")
    check_range("sets", sets, 1, 10_000, whole=True)
    check_range("candidates", candidates, 1, 2**31, whole=True)
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    most = len(heads) if most is None else int(check_range("most", most, 1, len(heads), whole=True))
    goal = np.inf if until is None else check_range("until", until, 0, 1e6)
    asked = ask(model, prompt, start, end, metric, NAME)
    choosing, held = _halves(asked, seed)
    if held is choosing:
        warnings.warn(
            f"{NAME}: one distinct prompt: heads are chosen and reported on the same; give several", stacklevel=2
        )
    order, pool = _greedy(model, choosing, start, end, heads, int(candidates), most, goal)
    none = no_place(model.dims)
    ends = torch.stack((none, ~none))
    rng = np.random.default_rng(seed)
    drawn = [_drawn(pool, size, int(sets), rng) for size in range(1, len(order) + 1)]
    chosen = [order[:size] for size in range(1, len(order) + 1)]
    growing = torch.stack([heads[list(one)].any(dim=0) for one in (*chosen, *chain(*drawn))])  # [sets, L*H + 2]
    different, back = torch.cat((ends, growing)).unique(dim=0, return_inverse=True)
    values = judged(model, held, start, end, different, NAME)[back.numpy()]  # [2 + …, prompts]
    table = labels.iloc[order].reset_index(drop=True)
    table.insert(0, "size", np.arange(1, len(order) + 1))
    table = _beside_random(table, values, [len(some) for some in drawn])
    table.attrs |= {"given": asked.given, "chosen_on": len(choosing.ids), "held_out": held is not choosing}
    return table


def _beside_random(table: pd.DataFrame, values: np.ndarray, sets: list[int]) -> pd.DataFrame:
    """Add what `values` tell: those of base, donor, the chosen sets, and `sets` random ones of each size."""
    whole = values[1] - values[0]
    gains = (values[2:] - values[0]).mean(axis=1)
    effect, *drawn = np.split(gains, np.cumsum([len(table), *sets[:-1]]))
    low, high = np.array([np.quantile(some, (0.025, 0.975)) for some in drawn]).T
    table = table.assign(effect=effect, share=share(effect, whole), random=[some.mean() for some in drawn])
    table = table.assign(random_low=low, random_high=high, random_sets=sets)
    (whole_low,), (whole_high,) = intervals(whole[None])
    table.attrs = {"whole": float(whole.mean()), "whole_low": float(whole_low), "whole_high": float(whole_high)}
    table.attrs["prompts"] = whole.size
    return table


def _halves(asked: Asked, seed: int) -> tuple[Asked, Asked]:
    """Return the prompts to choose on and those to report on, the same where all are one."""
    same: dict[tuple[int, ...], list[int]] = {}
    for at, ids in enumerate(asked.ids):
        same.setdefault(tuple(ids), []).append(at)
    groups = list(same.values())
    if len(groups) == 1:
        return asked, asked
    order, half = np.random.default_rng(seed).permutation(len(groups)), len(groups) // 2
    choosing, held = (asked.of(sorted(chain(*(groups[at] for at in some)))) for some in (order[:half], order[half:]))
    return choosing, held


def _drawn(pool: list[int], size: int, sets: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return `sets` different sets of so many of the pool, or all there are."""
    if comb(len(pool), size) <= sets:
        return list(combinations(sorted(pool), size))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < sets:
        found[tuple(sorted(rng.choice(pool, size, replace=False).tolist()))] = None
    return list(found)


def _greedy(
    model: Model, asked: Asked, base: State, donor: State, heads: Tensor, candidates: int, most: int, goal: float
) -> tuple[list[int], list[int]]:
    """Return the heads in the order in which they are added, and all the candidates."""
    none = no_place(model.dims)
    values = judged(model, asked, base, donor, torch.cat((torch.stack((none, ~none)), heads)), NAME).mean(axis=1)
    start, whole, gains = values[0], values[1] - values[0], values[2:] - values[0]
    if whole < NOISE:
        raise ArgError(
            f"{NAME}: the donor is above the base by {whole:.3g} in this metric, need {NOISE} at least: swap base and"
            " donor, or give another metric or more prompts"
        )
    left = np.argsort(-gains, kind="stable")[:candidates].tolist()
    pool, chosen = list(left), [left.pop(0)]
    reached = gains[chosen[0]]
    while left and len(chosen) < most and reached / whole < goal:
        tried = heads[left] | heads[chosen].any(dim=0)
        gains = judged(model, asked, base, donor, tried, NAME).mean(axis=1) - start
        best = int(gains.argmax())
        reached = gains[best]
        chosen.append(left.pop(best))
    return chosen, pool
