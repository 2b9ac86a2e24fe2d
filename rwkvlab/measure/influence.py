"""Influence: how long a mounted state lasts along a text, directly in every head and in what the model expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, NonFiniteError, PromptError
from rwkvlab.measure.along import along
from rwkvlab.measure.influence_report import RANDOM, STATE, Influence
from rwkvlab.measure.pieces import pieces
from rwkvlab.model.replay import SEGMENT, Carried, carried
from rwkvlab.shapes import check_range
from rwkvlab.states.controls import random_like
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

RANDOMS = 4  # random states whose mean is the control
STEPS = 256  # places along the text that are looked at, at most, where `every` is not given


def influence(
    model: Model,
    text: str | Sequence[int],
    state: State,
    *,
    every: int | None = None,
    seed: int = 0,
    tick: Callable[[float, float], object] | None = None,
) -> Influence:
    """Say when a mounted state is gone: follow it along one text, directly and in total. See `Influence`.

    Direct: the matrices of `state` are carried alone through the transitions that its own run makes, the inputs of all
    layers held fixed at those of the run from `state` (float64; exact, as the WKV is affine in its start). A transition
    of RWKV-7 can have a norm above 1, so what is left may rise before it falls. Total: the model is run again,
    teacher-forced on the text, from `state`, from zeros, and from RANDOMS random states with the singular values of
    `state` (seeds seed, seed + 1, …). Token-shifts of `state` count in the total effect only.

    text: text or ids, two tokens at least. every: the direct effect is taken after every so many tokens (1 … 1024);
    None takes the power of two that gives at most 256 places, so each token of a short text. Bars tell how far it is;
    with a `tick` none, but tick(done, total) now and then, and what it raises ends the reading. Raises ArgError (no
    State, or one of zeros), PromptError, MismatchError, NonFiniteError.
    """
    if not isinstance(state, State):
        raise ArgError(
            f"state: need a State, got {type(state).__name__}; for the zero state there is nothing to follow"
        )
    if not state.wkv.any() and not state.has_shifts:
        raise ArgError("state: it is all zeros, so there is nothing to follow")
    if not all(x.isfinite().all() for x in (state.wkv, state.att_shift, state.ffn_shift)):
        raise NonFiniteError("state: it holds NaN or infinity; load or make it again")
    check_range("seed", seed, 0, 2**63 - 1 - RANDOMS, whole=True)
    if not isinstance(text, str) and any(isinstance(one, str) for one in text):
        raise PromptError("text: need one text, or its ids, got a list of texts; call it for each of them")
    ids = model.encode(text)
    if every is None:
        every = min(SEGMENT, 1 << ((len(ids) - 1) // STEPS).bit_length())
    check_range("every", every, 1, SEGMENT, whole=True)
    # a third each: the random states, the reading from all of them, and what is left of the state itself
    shares = [None if tick is None else partial(_third, tick, at) for at in range(3)]
    randoms = []
    for at in tqdm(range(RANDOMS), delay=2, desc="random states", leave=False, disable=bool(tick)):
        randoms.append(random_like(state, seed + at))
        if shares[0] is not None:
            shares[0](at + 1, RANDOMS)
    seen = along(model, ids[:1], ids[1:], [None, state, *randoms], what="total influence", tick=shares[1])
    total = pd.DataFrame({"token": np.arange(1, len(ids)), "piece": pieces(model, ids)[1:]})
    parts = []
    for name, rows in ((STATE, slice(1, 2)), (RANDOM, slice(2, None))):
        kl, surprise = seen.kl[rows].mean(axis=0), seen.surprise[rows].mean(axis=0)
        parts.append(total.assign(start=name, kl=kl, surprise=surprise, surprise_zero=seen.surprise[0]))
    left = carried(model, ids, state, inputs_of=state, every=every, tick=shares[2])
    return Influence(
        direct=_direct(left),
        half_life=_half_life(left),
        total=pd.concat(parts, ignore_index=True),
        state=state.card.name,
        tokens=len(ids),
        every=every,
    )


def _third(tick: Callable[[float, float], object], at: int, done: float, total: float) -> None:
    """Say that of three thirds `at` are done, and of the next `done` of `total`."""
    tick(at + done / total, 3)


def _places(left: Carried) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the number of places, and layer and head of each head."""
    n, layers, heads = left.norm.shape
    return n, np.arange(layers).repeat(heads), np.tile(np.arange(heads), layers)


def _direct(left: Carried) -> pd.DataFrame:
    n, layer, head = _places(left)
    share = left.norm / left.norm[0]  # 0/0 leaves nan where the head of the state is zero
    return pd.DataFrame(
        {
            "token": left.positions.numpy().repeat(len(layer)),
            "layer": np.tile(layer, n),
            "head": np.tile(head, n),
            "norm": left.norm.flatten().numpy(),
            "share": share.flatten().numpy(),
            "readout": (left.readout / left.whole).flatten().numpy(),
        }
    )


def _half_life(left: Carried) -> pd.DataFrame:
    """Return after how many tokens less than half of each head's norm is left for good."""
    _, layer, head = _places(left)
    more = left.norm >= 0.5 * left.norm[0]  # [n,L,H]
    last = more.shape[0] - 1 - more.flip(0).int().argmax(dim=0)  # the last place with half or more: 0 at least
    after = torch.cat((left.positions.double(), torch.tensor([torch.inf], dtype=torch.float64)))
    life = torch.where(left.norm[0] > 0, after[last + 1], torch.nan)
    return pd.DataFrame({"layer": layer, "head": head, "half_life": life.flatten().numpy()})
