"""Starts between two states, some heads of one in the other: built, read and judged in batches of (start, prompt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, NonFiniteError, show
from rwkvlab.measure.patching.metric import Asked
from rwkvlab.model.parts import Flow
from rwkvlab.model.score import LOGITS
from rwkvlab.shapes import Dims, check_items
from rwkvlab.states.blend import mix
from rwkvlab.states.fits import check_fits, check_model
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 256  # (start, prompt) pairs read at once, fewer where states are large
BYTES = 2**30  # of states in one batch
TOKENS = 4096  # read at once, over all rows
SHIFTS = 2  # the last two places of a choice: att_shift, ffn_shift


def as_start(model: Model, name: str, state: State | None) -> State:
    """Return a state that can be mounted, None as zeros; raises ArgError, MismatchError, NonFiniteError by `name`."""
    check_model("model", model)
    if state is None:
        return model.zero()
    if not isinstance(state, State):
        raise ArgError(f"{name}: need a State or None (zeros), got {show(type(state).__name__)}")
    check_fits(state, model)
    if not all(x.isfinite().all() for x in (state.wkv, state.att_shift, state.ffn_shift)):
        raise NonFiniteError(f"{name}: {show(state.card.name or 'state')} holds NaN or infinity; it cannot be mounted")
    return state


def mean_start(model: Model, name: str, states: Any) -> State:
    """Return one state as `as_start` does, or the mean of several (a list, a mapping), token-shifts included."""
    if states is None or isinstance(states, State):
        return as_start(model, name, states)
    items = states.values() if isinstance(states, Mapping) else check_items(name, states)
    listed = [as_start(model, f"{name}[{at}]", state) for at, state in enumerate(items)]
    if not listed:
        raise ArgError(f"{name}: empty; give a State, several (their mean is taken), or None for zeros")
    return mix(listed, [1 / len(listed)] * len(listed))


def no_place(dims: Dims) -> Tensor:
    """Return the choice that takes all of the base: False for the L*H heads, layer by layer, and the two shifts."""
    return torch.zeros(dims.L * dims.H + SHIFTS, dtype=torch.bool)


def judged(model: Model, asked: Asked, base: State, donor: State, choices: Tensor, what: str) -> np.ndarray:
    """Return the metric of every start and prompt, [M,N] float64.

    choices [M, L*H + 2] are those of `no_place`: where one is True, the start has the donor's head or shift, else the
    base's. Only the starts of the batch at hand are built. A bar named `what` shows after two seconds. Raises
    NonFiniteError.
    """
    dims = model.dims
    sides = [
        [x.detach().to(model.device) for x in (s.wkv, s.att_shift, s.ffn_shift)] for s in (base, donor)
    ]  # [L,H,V,K] [L,C] [L,C]
    rows = max(1, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K), LOGITS // dims.vocab))
    out = np.empty((len(choices), len(asked.ids)))
    groups: dict[int, list[int]] = {}
    for at, ids in enumerate(asked.ids):
        groups.setdefault(len(ids), []).append(at)
    with torch.no_grad(), tqdm(total=out.size, delay=2, desc=what, leave=False) as bar:
        for group in groups.values():
            jobs = np.array([(start, at) for at in group for start in range(len(choices))])
            for first in range(0, len(jobs), rows):
                starts, prompts = jobs[first : first + rows].T
                flow = _flow(model, sides, choices[torch.as_tensor(starts)])
                logits = _read(model, torch.tensor([asked.ids[at] for at in prompts]), flow)
                out[starts, prompts] = _judge(model, asked, logits, flow, prompts.tolist())
                bar.update(len(starts))
    if not np.isfinite(out).all():
        at = int(np.flatnonzero(~np.isfinite(out).all(axis=0))[0])
        raise NonFiniteError(f"prompt[{asked.kept[at]}]: the metric is NaN or infinite; check the weights and metric")
    return out


def _flow(model: Model, sides: list[list[Tensor]], choices: Tensor) -> Flow:
    """Stack the B starts of choices [B, L*H + 2], layer by layer."""
    dims = model.dims
    heads = choices[:, :-SHIFTS].view(-1, dims.L, dims.H, 1, 1).to(model.device)
    shifts = choices[:, -SHIFTS:, None].to(model.device)  # [B,2,1]
    (wkv, att, ffn), (new_wkv, new_att, new_ffn) = sides
    return Flow(
        [torch.where(heads[:, i], new_wkv[i], wkv[i]) for i in range(dims.L)],  # [B,H,V,K]
        [torch.where(shifts[:, 0], new_att[i], att[i]).to(model.dtype) for i in range(dims.L)],  # [B,C]
        [torch.where(shifts[:, 1], new_ffn[i], ffn[i]).to(model.dtype) for i in range(dims.L)],
    )


def _read(model: Model, tokens: Tensor, flow: Flow) -> Tensor:
    """Read tokens [B,T], T of at least one, some at a time; returns the next token's logits [B,vocab]."""
    *first, end = tokens.split(max(16, TOKENS // len(tokens)), dim=1)
    for part in first:
        model.run(part, flow, None)
    logits = model.run(end, flow, "last")
    assert logits is not None
    return logits


def _judge(model: Model, asked: Asked, logits: Tensor, flow: Flow, prompts: list[int]) -> np.ndarray:
    """Return the metric [B] of the rows of `flow`, which have read their prompts."""
    if asked.call is not None:
        return asked.judge(logits)
    wanted, other = ([side[at] for at in prompts] for side in (asked.wanted, asked.other))
    short = all(len(answer) == 1 for answer in wanted)
    again = flow if short else flow.pick(list(range(len(prompts))))
    return (_logprobs(model, logits, again, wanted) - _logprobs(model, logits, flow, other)).cpu().numpy()


def _logprobs(model: Model, logits: Tensor, flow: Flow, answers: list[list[int]]) -> Tensor:
    """Return the log-probability [B] float64 of one answer a row, over all of its tokens; `flow` is used up."""
    lengths = torch.tensor([len(answer) for answer in answers])
    longest = int(lengths.max())
    ids = torch.tensor([[*answer, *[0] * (longest - len(answer))] for answer in answers])  # what is behind is not seen
    total = _picked(logits, ids[:, 0])
    width = max(1, LOGITS // (model.dims.vocab * len(ids)))
    for at in range(1, longest, width):
        wanted = ids[:, at : at + width]
        given = model.run(ids[:, at - 1 : at - 1 + wanted.shape[1]], flow, "all")
        assert given is not None
        inside = torch.arange(at, at + wanted.shape[1]) < lengths[:, None]  # [B,T]
        total = total + _picked(given, wanted).where(inside.to(total.device), 0).sum(dim=-1)
    return total


def _picked(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of ids [...] under logits [...,vocab], float64."""
    picked = logits.gather(-1, ids.to(logits.device)[..., None])[..., 0]
    return picked.double() - logits.double().logsumexp(dim=-1)
