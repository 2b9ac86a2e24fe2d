"""Writes: which token of a text wrote how much of what a head holds at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, NonFiniteError
from rwkvlab.measure.along import along
from rwkvlab.measure.pieces import pieces
from rwkvlab.model.trace import Trace
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

START = "the initial state"


def writes(
    model: Model,
    text: str | Sequence[int],
    state: State | None = None,
    *,
    layer: int,
    head: int,
    top: int | None = None,
) -> pd.DataFrame:
    """Rank the tokens of a text by what they left in one head, from `state` (None: zeros).

    The final matrix is, exactly, S_T = S_0 P_1 … P_T + sum over t of v_t (k_t^T P_(t+1) … P_T): each token writes an
    outer product, which the transitions P of all later tokens then turn and wear down. Returns one row a token, and one
    for the start: rank (from 1, by the size of share), token (from 0; -1 for the start), piece (its text; "the initial
    state"), norm (Frobenius, of the write as it stands at the end, state units), share (its projection on S_T,
    <write, S_T> / |S_T|^2: below 0 where it was written against, nan where S_T is zero; all of them, the start's
    included, sum to 1) and surprise (nats, -log p of the token given the state and the tokens before it; nan for the
    first token and the start). top: only so many rows, None for all. Raises ArgError, PromptError, MismatchError,
    NonFiniteError.
    """
    layer = int(check_range("layer", layer, 0, model.dims.L - 1, whole=True))
    head = int(check_range("head", head, 0, model.dims.H - 1, whole=True))
    if top is not None:
        check_range("top", top, 1, 2**31, whole=True)
    if state is not None and not isinstance(state, State):
        raise ArgError(f"state: need a State or None, got {type(state).__name__}")
    ids = model.encode(text)
    names = ("w", "k", "v", "a", "b") if model.dims.arch == "x070" else ("w", "k", "v")
    trace = model.trace(ids, state, heads=[(layer, head)], keep=names)
    start = torch.zeros(model.dims.V, model.dims.K) if state is None else state.wkv[layer, head].detach().cpu()
    first, keys = as_they_stand(trace, start)
    values = trace["v"][0].double()  # [T,V]
    end = first + values.mT @ keys  # [V,K]
    whole = end.square().sum()
    if not whole.isfinite():
        at = broken_at(trace, start)
        since = "at the start" if at < 0 else f"from about token {at} (from 0) on"
        raise NonFiniteError(
            f"writes: the head holds NaN or infinity {since}; the"
            " weights or the mounted state are broken, or the state has grown without bound along this text"
        )
    sizes = torch.cat((first.norm()[None], values.norm(dim=-1) * keys.norm(dim=-1)))
    along_end = torch.cat(((first * end).sum()[None], ((values @ end) * keys).sum(dim=-1)))
    surprise = np.full(len(ids) + 1, np.nan)
    if len(ids) > 1:
        surprise[2:] = along(model, ids[:1], ids[1:], [state], what="surprise").surprise[0]
    table = pd.DataFrame(
        {
            "token": np.arange(-1, len(ids)),
            "piece": [START, *pieces(model, ids)],
            "norm": sizes.numpy(),
            "share": (along_end / whole).numpy(),
            "surprise": surprise,
        }
    )
    order = table["share"].abs().sort_values(ascending=False, kind="stable").index
    table = table.loc[order].reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table if top is None else table.head(top)


def broken_at(trace: Trace, start: Tensor) -> int:
    """Return the first token after which the squared norm of one head is not finite: -1 for its start [V,K].

    In layers above the first what broke it may be some tokens later, as the kernels below work on chunks of the text.
    """
    state = start.double()
    decay, k, v = trace["w"][0].double().exp(), trace["k"][0].double(), trace["v"][0].double()
    for t in range(-1, len(k)):
        if t >= 0:
            step = state * decay[t] + torch.outer(v[t], k[t])
            if "a" in trace.kept:
                step = step + torch.outer(state @ trace["a"][0, t].double(), trace["b"][0, t].double())
            state = step
        if not state.square().sum().isfinite():
            return t
    return len(k) - 1


def as_they_stand(trace: Trace, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is left of `start` [V,K] and the key of every token's write [T,K] at the end of a text, float64.

    trace: of one head, with w, k and in RWKV-7 a and b. The keys are k_t^T P_(t+1) … P_T, where
    P = diag(exp w) + a b^T (RWKV-5 and 6: without a b^T), built up from the end of the text.
    """
    decay, k = trace["w"][0].double().exp(), trace["k"][0].double()  # [T,K]
    tokens, size = k.shape
    keys = torch.empty_like(k)
    if "a" not in trace.kept:  # the product of diagonal matrices
        product = torch.ones(size, dtype=torch.float64)
        for t in range(tokens - 1, -1, -1):
            keys[t] = k[t] * product
            product = product * decay[t]
        return start.double() * product, keys
    a, b = trace["a"][0].double(), trace["b"][0].double()
    later = torch.eye(size, dtype=torch.float64)
    for t in tqdm(range(tokens - 1, -1, -1), delay=2, desc="writes", leave=False):
        keys[t] = k[t] @ later
        later = torch.addr(decay[t, :, None] * later, a[t], b[t] @ later)
    return start.double() @ later, keys
