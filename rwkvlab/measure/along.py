"""What a model expects along a given text, from several initial states at once: surprise, KL, likeliest token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, NonFiniteError, PromptError
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

LOGITS = 2**22  # numbers in one block of logits; `judge` makes some copies of it in float64, 32 MiB each
TOKENS = 2**14  # tokens of all rows read at once
WATCHED = 256  # the same where somebody may want to stop


class Along(NamedTuple):
    """One row a start, one column a token of the text, all [S,T].

    surprise: -log p of the token, nats. kl: from this start's distribution to that of the reference start, KL(start ‖
    reference), nats. best: whether the token was the likeliest one.
    """

    surprise: np.ndarray
    kl: np.ndarray
    best: np.ndarray


def along(
    model: Model,
    prompt: Sequence[int],
    ids: Sequence[int],
    starts: Sequence[State | None],
    *,
    reference: int = 0,
    what: str = "reading",
    tick: Callable[[float, float], object] | None = None,
) -> Along:
    """Read `prompt` and then `ids` (both of at least one id) from each of S starts, teacher-forced; None is zeros.

    Every token of ids is judged given all before it; reference is the index of the start that the others are set
    against. The states are batched, the text is read in pieces that keep the logits small, and a bar named `what` shows
    after two seconds; with a `tick` no bar, but tick(tokens read, of how many) after each piece, a small one, and what
    it raises ends the reading. Raises PromptError, ArgError, MismatchError, NonFiniteError with the start's index and
    that of the first token, in prompt and ids together, that could not be judged (kernels work on chunks of the text,
    so what broke it may be some tokens later).
    """
    states, prompt, ids = list(starts), list(prompt), list(ids)
    if not prompt or not ids:
        raise PromptError("text: need at least two tokens; the first cannot be predicted from a state alone")
    if not 0 <= reference < len(states):
        raise ArgError(f"reference: need an index below {len(states)}, got {reference}")
    rows = len(states)
    surprise, kl = np.empty((rows, len(ids))), np.empty((rows, len(ids)))
    best = np.empty((rows, len(ids)), dtype=bool)
    with torch.no_grad():
        flow = model.begin(states)
        fed = torch.tensor([prompt + ids[:-1]]).expand(rows, -1)
        head = len(prompt) - 1
        longest = max(16, (TOKENS if tick is None else WATCHED) // rows)
        told, bar = (
            tick or (lambda done, total: None),
            partial(tqdm, desc=what, delay=2, leave=False, disable=bool(tick)),
        )
        for at in bar(range(0, head, longest)):
            model.run(fed[:, at : min(head, at + longest)], flow, None)
            told(min(head, at + longest), head + len(ids))
        room = LOGITS * (4 if model.device.type == "cuda" else 1)  # a GPU is slow in small pieces
        width = min(max(1, room // (model.dims.vocab * rows)), longest)
        for at in bar(range(0, len(ids), width)):
            logits = model.run(fed[:, head + at : head + at + width], flow, "all")
            assert logits is not None
            end = at + logits.shape[1]
            parts = judge(logits, torch.tensor(ids[at:end]), reference)
            surprise[:, at:end], kl[:, at:end], best[:, at:end] = parts
            told(head + end, head + len(ids))
    for row, at in np.argwhere(~np.isfinite(surprise))[:1]:
        raise NonFiniteError(
            f"states[{row}]: logits hold NaN or infinity from about token {len(prompt) + at} (from 0) on; the"
            " weights or this state are broken, or the state has grown without bound along this text"
        )
    return Along(surprise, kl, best)


def judge(logits: Tensor, wanted: Tensor, reference: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return surprise, KL(row ‖ row `reference`) and whether `wanted` [T] is likeliest, for logits [B,T,vocab]."""
    logp = logits.double().log_softmax(dim=-1)
    ids = wanted.to(logits.device).expand(len(logits), -1)
    surprise = -logp.gather(-1, ids[..., None])[..., 0]
    apart = logp - logp[reference : reference + 1]
    kl = (logp.exp() * apart).sum(dim=-1).clamp_min(0)
    best = logits.argmax(dim=-1) == ids
    return surprise.cpu().numpy(), kl.cpu().numpy(), best.cpu().numpy()
