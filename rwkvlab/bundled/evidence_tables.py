"""The tables of the evidence: each arm by seed, means with 95 % intervals, lifts over no state, and what must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from rwkvlab.bundled.evidence_arms import CONTROLS
from rwkvlab.measure.interval import interval

MEASURES = ("exact", "style", "content", "logprob")
LIFT = 0.05  # what no control may add to no state
GOOD, POOR = 0.95, 0.5  # what a state must reach where no state has at most so much
# styles that are one and the same for questions in Chinese: for these only questions in English tell them apart
SAME_IN_CHINESE = {"plain", "chinese"}


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


def _grid(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Return a measure as [S,N]: seeds (and others, or draws) down, examples across."""
    wide = rows.pivot(index=["seed", "which"], columns="example", values=name)
    return wide.to_numpy(dtype=float)
