"""The tables of the evidence: each arm by seed, means with 95 % intervals, lifts over no state, and what must hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rwkvlab.bundled.evidence_arms import ARMS, CONTROLS
from rwkvlab.measure.interval import interval

MEASURES = ("exact", "style", "content", "logprob")
LIFT = 0.05  # what no control may add to no state
GOOD, POOR = 0.95, 0.5  # what a state must reach where no state has at most so much
# styles that are one and the same for questions in Chinese: for these only questions in English tell them apart
SAME_IN_CHINESE = {"plain", "chinese"}
EXPLAINED = (
    "Mounting what was read, with its token-shifts, is the same as reading on: 'read tag' and 'read shots' come out "
    "as 'tag' and 'shots' do. Without the token-shifts the next token does not see the one before it.",
    "'tag' of swap and list is a tag that the model never met.",
    "Answers in the styles plain and chinese to Chinese questions are the same, so the states of these two are set "
    "against each other on English questions alone.",
)
TITLES = {
    "style": "style right",
    "content": "content right",
    "exact": "exact right",
    "logprob": "log-probability of the answer (nats)",
}
PARTS = {
    "all": "bits per byte, text by start",
    "first 100": "bits per byte, text by start, first 100 tokens",
}
INTERVAL = ": 95 % interval"


class Must(NamedTuple):
    """Something that must hold: what, whether it does, and the numbers behind it."""

    what: str
    holds: bool
    detail: str


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (task, arm, seed, which): the number of examples and the means of what was measured."""
    keys = ["task", "family", "absent", "arm", "seed", "which"]
    groups = rows.groupby(keys, sort=False)
    return groups[[*MEASURES]].mean().assign(examples=groups.size()).reset_index()


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (task, arm), means with their 95 % intervals (columns _low, _high) over examples and seeds.

    The draws of "random" and all the others of "wrong" count as seeds.
    """
    found = []
    for (task, family, absent, arm), part in rows.groupby(["task", "family", "absent", "arm"], sort=False):
        row = {"task": task, "family": family, "absent": absent, "arm": arm}
        row |= {"examples": part["example"].nunique(), "seeds": part.groupby(["seed", "which"]).ngroups}
        for name in MEASURES:
            values = _grid(part, name)
            low, high = interval(values, outcomes=name != "logprob")
            row |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
        found.append(row)
    return pd.DataFrame(found)


def lifts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what each control adds to no state on the same questions, in `right`: the largest first.

    One row a (task, control, which), which is the other state of "wrong"; lift with its 95 % interval. Of the pair of
    styles that are the same in Chinese only questions in English count: column "questions" says so.
    """
    found = []
    for task, part in rows.groupby("task", sort=False):
        zero = part[part["arm"] == "no state"]
        for control in CONTROLS:
            some = part[part["arm"] == control]
            groups = some.groupby("which", sort=False) if control == "wrong" else [("", some)] if len(some) else []
            for which, one in groups:
                english = {task, which} == SAME_IN_CHINESE
                one, base = (x[x["language"] == "en"] if english else x for x in (one, zero))
                if not len(one):
                    continue
                more = _grid(one, "right") - _grid(base, "right")
                low, high = interval(more)
                head = {"task": task, "control": control, "which": which, "questions": "English" if english else "all"}
                found.append(head | {"lift": float(more.mean()), "low": low, "high": high})
    table = pd.DataFrame(found, columns=["task", "control", "which", "questions", "lift", "low", "high"])
    return table.sort_values("lift", ascending=False, kind="stable", ignore_index=True)


def musts(rows: pd.DataFrame, margin: pd.DataFrame | None = None) -> Iterator[Must]:
    """Yield what the evidence must show, and whether it does; margin: `evidence_texts.margins`, if texts were read."""
    zero = rows[rows["arm"] == "no state"].groupby("task", sort=False)["right"].mean()
    known = rows[~rows["absent"] & (rows["arm"] == "state")]
    asked = known[known["task"].map(zero) <= POOR]
    asked = asked.assign(name=asked["task"] + " (seed " + asked["seed"].astype(str) + ")")
    easy = [task for task in known["task"].unique() if zero[task] > POOR]
    for what, name in (("right in function or style", "right"), ("right in content", "content")):
        share = asked.groupby("name", sort=False)[name].mean()
        low = [f"{task} {value:.3f}" for task, value in share.items() if value < GOOD]
        detail = f"least {share.min():.3f} of {len(share)} states" + (f"; below: {', '.join(low)}" if low else "")
        detail += f"; left out, above {POOR} without a state: {', '.join(easy)}" if easy else ""
        whole = f"every tuned state is {what} >= {GOOD} where no state is <= {POOR}"
        yield Must(whole, not low and len(share) > 0, detail)
    table = lifts(rows)
    above = table[table["lift"] > LIFT]
    named = [f"{row.task}: {row.control} {row.which} {row.lift:+.3f}" for row in above.head(8).itertuples()]
    best = table.iloc[0]
    detail = "; ".join(named) or f"largest {best['lift']:+.3f}: {best['control']} {best['which']} on {best['task']}"
    yield Must(f"no control is above no state by more than {LIFT}", above.empty, detail)
    if margin is not None:
        lost = margin[margin["margin"] <= 0]
        some = [f"{row.task} from {row.other} {row.margin:+.4f}" for row in lost.itertuples()]
        near = margin[margin["near"]]
        said = [
            f"{row.task} from {row.other} +{row.margin:.4f} [{row.low:.4f}, {row.high:.4f}]"
            for row in near.itertuples()
        ]
        yield Must("of each source's texts its own state is the best", lost.empty, "; ".join(some or said))


def card_summary(
    tables: Mapping[str, pd.DataFrame], said: Sequence[Must], n: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return what card.json keeps of the evidence: by task and arm, the matrix, and what must hold.

    Behind each table of means stands that of their 95 % intervals, [low, high]; those that are not known are left out.
    """
    found: dict[str, Any] = {"questions of each task": n, "tuning seeds": list(seeds)}
    found["musts"] = [{"what": one.what, "holds": one.holds, "numbers": one.detail} for one in said]
    found["explained"] = EXPLAINED
    arms = tables["arms"]
    for name, title in TITLES.items():
        table = arms[arms["family"] == "style"] if name in ("style", "content") else arms
        for key, grid in _grids(table, ("arm", "task"), (name, f"{name}_low", f"{name}_high"), 3):
            found[title + key] = {arm: grid[arm] for arm in ARMS if arm in grid}
    if "texts" in tables:
        texts = tables["texts"]
        texts = texts[texts["arm"].isin(("no state", "tag", "state"))]
        texts = texts.assign(start=texts["which"].where(texts["arm"] == "state", texts["arm"]))
        for part, title in PARTS.items():
            some = texts[texts["part"] == part]
            for key, grid in _grids(some, ("task", "start"), ("bits_per_byte", "low", "high"), 4):
                found[title + key] = grid
    return found


def _grids(
    table: pd.DataFrame, by: tuple[str, str], names: tuple[str, str, str], digits: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the means and then their intervals, rounded, by two columns; names: the columns of mean, low and high."""
    mean, *ends = (table[name].round(digits).tolist() for name in names)
    pairs = [list(pair) if all(map(math.isfinite, pair)) else None for pair in zip(*ends, strict=True)]
    for key, values in (("", mean), (INTERVAL, pairs)):
        cells = table.assign(cell=pd.Series(values, index=table.index, dtype=object))
        grid = cells.pivot(index=by[0], columns=by[1], values="cell")
        yield key, {str(name): row.dropna().to_dict() for name, row in grid.iterrows()}


def _grid(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Return a measure as [S,N]: seeds (and others, or draws) down, examples across."""
    wide = rows.pivot(index=["seed", "which"], columns="example", values=name)
    return wide.to_numpy(dtype=float)
