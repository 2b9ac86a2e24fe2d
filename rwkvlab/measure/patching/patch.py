"""Patching: where the effect of a state lies, by putting one head, layer or shift of it into another state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.interval import intervals
from rwkvlab.measure.patching.metric import ask
from rwkvlab.measure.patching.starts import as_start, judged, no_place
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

PARTS = ("wkv", "att_shift", "ffn_shift")
NOISE = 0.01  # nats: no share of a whole way that is shorter than this


def patch_map(
    model: Model, prompt: Any, base: State | None, donor: State | None, *, metric: Any = None, per: str = "head"
) -> pd.DataFrame:
    """Tell where the difference between two states lies: one head of the donor in the base, and the other way round.

    prompt: a text, a list of texts (or token ids), or a Task (its prompts in its template); take some that the states
    were not tuned on. base, donor: None is the zero state. per: "head", "layer" (all heads of it) or "part" ("wkv", all
    matrices; "att_shift", "ffn_shift", of all layers). Heads and layers leave the token-shifts where they are.

    metric, judged after each prompt, in nats:
    - None: log p(wanted) - log p(other), wanted what the model answers greedily from the donor, other from the base, up
      to 32 tokens, the end of text or the template's stop. Prompts that both answer alike are left out, with a warning.
      The answers are selected for the difference: each is what its own state prefers, so that a whole way above zero
      is no evidence of an effect, only its places tell something; give a pair to test whether there is one.
    - a pair (wanted, other): each a string, a list of one string a prompt, or a Task with the same prompts; a single
      Task beside a Task as prompt: its answers against those of the prompt's. Answers are written in the task's
      template (lead included), or as they are beside plain texts; teacher-forced over all their tokens. Where the
      tokens of one begin the other's, both have what ends them (the template's separator, else the end of text).
    - a function of the next token's logits [B,vocab] fp32 on the model's device that returns [B] numbers, larger for
      more of the donor; the rows are (start, prompt) pairs in no promised order, and the unit is that of its values.

    Returns one row a place: layer, head (from 0; per="layer" has no head, per="part" has the column part instead),
    effect (mean over prompts of what the base gains with this place from the donor), low, high (95 % over prompts,
    `interval`; nan for a single one), share (effect / the whole way from base to donor, shifts included; nan where that
    is shorter than 0.01), and reverse, reverse_low, reverse_high, reverse_share: what the donor loses with this
    place from the base. Places act together: effects need not sum to the whole, and the two directions need not agree.
    `attrs` holds whole, whole_low, whole_high, prompts (how many were judged) and given (how many there were).
    Activation patching as in Vig et al. 2020 (arXiv 2004.12265), Meng et al. 2022 (arXiv 2202.05262), here at the
    initial state alone.

    Raises ArgError, PromptError, MismatchError, NonFiniteError.
    """
    start, end = as_start(model, "base", base), as_start(model, "donor", donor)
    places, labels = places_of(model.dims, per)
    asked = ask(model, prompt, start, end, metric, "patch_map")
    none = no_place(model.dims)
    values = judged(model, asked, start, end, torch.cat((torch.stack((none, ~none)), places, ~places)), "patch_map")
    count = len(places)
    table = effects(labels, values[2 : 2 + count] - values[0], values[1] - values[0], asked.given)
    back = effects(labels, values[1] - values[2 + count :], values[1] - values[0], asked.given)
    for name in ("effect", "low", "high", "share"):
        table["reverse" if name == "effect" else f"reverse_{name}"] = back[name]
    return table


def places_of(dims: Dims, per: str) -> tuple[Tensor, pd.DataFrame]:
    """Return the P places of a map as choices [P, L*H + 2] (see `no_place`), and the columns that name them."""
    none = no_place(dims)
    heads = torch.arange(dims.L * dims.H)
    if per == "head":
        places = none.repeat(len(heads), 1)
        places[heads, heads] = True
        labels = {"layer": (heads // dims.H).numpy(), "head": (heads % dims.H).numpy()}
    elif per == "layer":
        places = none.repeat(dims.L, 1)
        places[heads // dims.H, heads] = True
        labels = {"layer": np.arange(dims.L)}
    elif per == "part":
        places = none.repeat(len(PARTS), 1)
        places[0, : len(heads)] = True
        places[1, -2] = places[2, -1] = True
        return places, pd.DataFrame({"part": list(PARTS)})
    else:
        raise ArgError(f"per: need 'head', 'layer' or 'part', got {show(per)}")
    return places, pd.DataFrame(labels)


def effects(labels: pd.DataFrame, gained: np.ndarray, whole: np.ndarray, given: int) -> pd.DataFrame:
    """Return `labels` with effect, low, high and share of gains [P,N] over prompts; whole [N] is the whole way.

    given: how many prompts there were.
    """
    low, high = intervals(gained)
    (whole_low,), (whole_high,) = intervals(whole[None])
    table = labels.assign(effect=gained.mean(axis=1), low=low, high=high, share=share(gained.mean(axis=1), whole))
    table.attrs = {
        "whole": float(whole.mean()),
        "whole_low": float(whole_low),
        "whole_high": float(whole_high),
        "prompts": whole.size,
        "given": given,
    }
    return table


def share(effect: Any, whole: np.ndarray) -> Any:
    """Return effect over the mean of the whole way [N]; nan where that is below NOISE."""
    way = float(whole.mean())
    return effect / (way if abs(way) >= NOISE else np.nan)
