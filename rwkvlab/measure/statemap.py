"""state_map: where several states lie to one another, as points in a few dimensions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, NonFiniteError, show
from rwkvlab.measure.arms import States, name_arms
from rwkvlab.measure.distance import check_pair
from rwkvlab.measure.watch import MOST, principal
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State


def state_map(states: States, components: int = 2) -> pd.DataFrame:
    """Return states as points: the first principal components of their WKV matrices, each one long vector.

    states: a mapping of names, a list of State, or a Shelf; None among them is the zero state. The points are centred
    together and get one PCA, exact, in float64; of distances it keeps as much as so few dimensions can. Returns one row
    a state: state (its name), norm (Frobenius, of all heads), pc1, pc2, … (state units; the largest entry of each is
    positive). attrs["explained"] holds the share of the variance that each component explains (nan where no state
    differs). Token-shifts do not count. Draw it with `lab.plot_map`. Raises ArgError (fewer than two states, more than
    5000, more components than states), MismatchError for states of different models, NonFiniteError.
    """
    arms = name_arms(states, zero_first=False)
    given = [state for state in arms.values() if state is not None]
    if len(arms) < 2 or not given:
        raise ArgError(f"states: need two or more, one of them not None, got {len(arms)}; a map shows how they lie")
    if len(arms) > MOST:
        raise ArgError(f"states: {len(arms)}, at most {MOST} fit in one map; take some of them")
    components = int(check_range("components", components, 1, len(arms), whole=True))
    zero = given[0].replace(wkv=torch.zeros_like(given[0].wkv))
    shown = {name: zero if state is None else state for name, state in arms.items()}
    for name, state in shown.items():
        check_pair(f"state_map: {show(name)}", given[0], state)
        if not state.wkv.isfinite().all():
            raise NonFiniteError(f"states: {show(name)} holds NaN or infinity; load or make it again")
    scores, explained = principal(_heads(list(shown.values())), components)
    if scores is None:
        raise NonFiniteError("states: their numbers are too large to be squared; scale them first")
    norms = [float(state.wkv.detach().double().norm()) for state in shown.values()]
    columns = {f"pc{at + 1}": scores[:, at] for at in range(components)}
    table = pd.DataFrame({"state": list(shown), "norm": np.array(norms), **columns})
    table.attrs["explained"] = explained
    return table


def _heads(states: list[State]) -> Iterator[Tensor]:
    """Yield the matrices of all states of one head after the other, [n,V*K]."""
    layers, heads = states[0].wkv.shape[:2]
    for at in tqdm(range(layers * heads), delay=2, desc="map of states", leave=False):
        layer, head = divmod(at, heads)
        yield torch.stack([state.wkv[layer, head].detach().cpu().flatten() for state in states])
