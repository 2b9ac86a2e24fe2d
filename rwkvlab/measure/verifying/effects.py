"""What each of several starts does to the same texts: loss and change of the next token's distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rwkvlab.errors import NonFiniteError
from rwkvlab.model.score import LOGITS
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


ZERO, STORED = "zero", "as stored"  # the names of the starts without a state, and from it


class Effects(NamedTuple):
    """rows: one a (text, start): text (index), start, tokens, loss (nats a token) and kl (nats a token, from the first
    start's distribution to this one's). norms [L]: of the WKV state of the first start after a text, on average.
    """

    rows: pd.DataFrame
    norms: np.ndarray


def effects(
    model: Model,
    texts: Sequence[tuple[list[int], list[int]]],
    starts: Mapping[str, State | None],
    on_text: Callable[[], object],
) -> Effects:
    """Read each text, (ids of the prompt, ids of what follows), from all starts at once, and judge what follows.

    on_text is called after each. Raises MismatchError for a state that does not fit, NonFiniteError with the start.
    """
    rows, norms = [], torch.zeros(model.dims.L, dtype=torch.float64)
    states = list(starts.values())
    with torch.no_grad():
        for number, (prompt, wanted) in enumerate(texts):
            flow = model.begin(states)
            fed = torch.tensor([prompt + wanted[:-1]]).expand(len(states), -1)
            head = len(prompt) - 1
            if head:
                model.run(fed[:, :head], flow, None)
            loss, kl = (torch.zeros(len(states), dtype=torch.float64) for _ in range(2))
            width = max(1, LOGITS // (model.dims.vocab * len(states)))
            for at in range(0, len(wanted), width):
                piece = fed[:, head + at : head + at + width]
                logits = model.run(piece, flow, "all")
                assert logits is not None
                part, moved = _judge(logits, torch.tensor(wanted[at : at + piece.shape[1]]))
                loss, kl = loss + part, kl + moved
            if not loss.isfinite().all():
                raise _broken(number, [name for name, bad in zip(starts, ~loss.isfinite(), strict=True) if bad])
            norms += torch.stack([layer[0].float().norm() for layer in flow.wkv]).double().cpu()
            for start, one, moved_by in zip(starts, loss.tolist(), kl.tolist(), strict=True):
                rows.append((number, start, len(wanted), one / len(wanted), moved_by / len(wanted)))
            on_text()
    frame = pd.DataFrame(rows, columns=["text", "start", "tokens", "loss", "kl"])
    return Effects(frame, (norms / max(1, len(texts))).numpy())


def summary(rows: pd.DataFrame, zero: str) -> pd.DataFrame:
    """Return one row a start: loss and se of it, change (against `zero`, the paired difference) and its se, kl, tokens.

    All but tokens are means over texts in nats a token; se are standard errors of these means.
    """
    losses = rows.pivot_table(index="text", columns="start", values="loss", sort=False)
    out = []
    for start in losses.columns:
        loss, se = mean_se(losses[start].to_numpy())
        change, change_se = mean_se((losses[start] - losses[zero]).to_numpy())
        part = rows[rows["start"] == start]
        out.append((start, loss, se, change, change_se, float(part["kl"].mean()), int(part["tokens"].sum())))
    return pd.DataFrame(out, columns=["start", "loss", "se", "change", "change_se", "kl", "tokens"])


def mean_se(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error; NaN for a single value."""
    count = len(values)
    return float(values.mean()), float(values.std(ddof=1) / count**0.5) if count > 1 else float("nan")


def _broken(number: int, bad: list[str]) -> NonFiniteError:
    """Return the error for logits that are not finite, of one text, from some of the starts."""
    if ZERO in bad:
        return NonFiniteError(
            f"texts[{number}]: logits hold NaN or infinity even without a state: the weights are broken"
        )
    if STORED in bad:
        return NonFiniteError(
            f"texts[{number}]: logits hold NaN or infinity from the state: is it damaged, or too large?"
        )
    return NonFiniteError(
        f"texts[{number}]: logits hold NaN or infinity from the control {bad[0]!r}, made from the state: it is"
        " too large for this model; try dtype fp32, or scale the state"
    )


def _judge(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss [B] of wanted [T] under logits [B,T,vocab], and the summed KL from row 0 [B]."""
    logp = logits.log_softmax(dim=-1)
    ids = wanted.to(logits.device).expand(len(logits), -1)
    loss = -logp.gather(-1, ids[..., None])[..., 0]
    kl = (logp[:1].exp() * (logp[:1] - logp)).sum(dim=-1)
    return loss.double().sum(dim=-1).cpu(), kl.double().sum(dim=-1).clamp_min(0).cpu()
