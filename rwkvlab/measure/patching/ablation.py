"""Ablation: what a state loses where one head, layer or shift of it is replaced by zeros, a mean or another state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from rwkvlab.measure.patching.metric import ask
from rwkvlab.measure.patching.patch import effects, places_of
from rwkvlab.measure.patching.starts import as_start, judged, mean_start, no_place
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def ablation_map(
    model: Model,
    prompt: Any,
    state: State | None,
    *,
    by: Any = None,
    metric: Any = None,
    per: str = "head",
) -> pd.DataFrame:
    """Tell what the state loses where one place of it is replaced.

    by: None replaces it by zeros; a State by that place of it; a list, mapping or Shelf by the mean of its states. None
    of these is "nothing": zeros are a start that a tuned state may never have been near, and the mean of tuned states
    is itself a state with an effect. prompt, metric and per are those of `patch_map`: with metric None, the answer from
    `state` is wanted, and the answer from `by`, as a whole, is the other.

    Returns layer, head (or layer, or part), effect (mean over prompts of the log-odds lost, nats), low, high (95 % over
    prompts) and share (of the whole way from `by` to `state`; nan where that is shorter than 0.01), and `attrs` as
    `patch_map`. Equal to its reverse columns with `by` as base and `state` as donor. Raises as it does.
    """
    end, start = as_start(model, "state", state), mean_start(model, "by", by)
    places, labels = places_of(model.dims, per)
    asked = ask(model, prompt, start, end, metric, "ablation_map")
    none = no_place(model.dims)
    choices = torch.cat((torch.stack((none, ~none)), ~places))
    values = judged(model, asked, start, end, choices, "ablation_map")
    return effects(labels, values[1] - values[2:], values[1] - values[0], asked.given)
