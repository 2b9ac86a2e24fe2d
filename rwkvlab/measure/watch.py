"""Watch: how a state moves along a text: its path in a few dimensions, its norm and its rank over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, show
from rwkvlab.measure.spectrum import effective_rank
from rwkvlab.model.trace import Trace
from rwkvlab.shapes import check_items, check_range

MOST = 5000  # states in one PCA: its Gram matrix has the square of that
NUMBERS = 2**24  # numbers of states looked at at once


def trajectory(traces: Trace | Sequence[Trace] | Mapping[str, Trace], components: int = 2) -> pd.DataFrame:
    """Return the paths of states along texts, in the first principal components of all of them together.

    traces: one, several, or a mapping of names, all of one model, with "state" kept and the same heads. Each state is
    one point, its matrices one long vector; the points of all texts are centred together and get one PCA, exact, in
    float64, by the Gram matrix of the points. Returns one row a state: text (the mapping's name, else "text 1", …),
    token (how many were read), pc1, pc2, … (state units; the sign is such that the largest entry of each is positive).
    attrs["explained"] holds the share of the variance that each component explains (nan where no state moves). Raises
    ArgError (nothing kept, more components than states, more than 5000 states), MismatchError, NonFiniteError.
    """
    named = _named(traces)
    points = [_points(name, trace) for name, trace in named.items()]
    _check_alike(named, points)
    count = sum(map(len, points))
    if count > MOST:
        raise ArgError(f"traces: {count} states, at most {MOST} fit in one PCA; trace with a larger every")
    components = int(check_range("components", components, 1, count, whole=True))
    heads = tqdm(range(points[0].shape[1]), delay=2, desc="trajectory", leave=False)
    scores, explained = principal((torch.cat([x[:, head].flatten(1) for x in points]) for head in heads), components)
    if scores is None:
        raise NonFiniteError("traces: a state holds NaN or infinity; the weights or the mounted state are broken")
    table = pd.DataFrame(
        {
            "text": [name for name, x in zip(named, points, strict=True) for _ in range(len(x))],
            "token": np.concatenate([trace.positions.numpy() for trace in named.values()]),
        }
        | {f"pc{i + 1}": scores[:, i] for i in range(components)}
    )
    table.attrs["explained"] = explained
    return table


def principal(parts: Iterable[Tensor], components: int) -> tuple[np.ndarray | None, tuple[float, ...]]:
    """Return the first principal components of n points, [n,components], and the share of the variance of each.

    parts: [n,D] each, together the coordinates of the points. Exact, in float64, by the Gram matrix of the centred
    points; the largest entry of each component is positive. None for points that are not finite; shares are nan where
    no point differs.
    """
    gram = torch.zeros(1, 1, dtype=torch.float64)
    for part in parts:
        centred = part.double() - part.double().mean(dim=0)
        gram = torch.addmm(gram, centred, centred.mT, out=None if gram.numel() == 1 else gram)
    if not gram.isfinite().all():
        return None, ()
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0)[:components], vectors.flip(1)[:, :components]
    scores = vectors * values.sqrt()
    largest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    total = gram.trace()
    explained = tuple((values / total).tolist() if total > 0 else [float("nan")] * components)
    return (scores * torch.where(largest < 0, -1.0, 1.0)).numpy(), explained


def over_time(trace: Trace) -> pd.DataFrame:
    """Return norm and rank of every kept state of a trace, one row a (token, layer, head).

    Columns: token (how many were read), layer, head, norm (Frobenius, state units) and effective_rank (exp of the
    entropy of the singular values over their sum: Roy & Vetterli 2007; 1 … min(V, K), 0 for a head of zeros).
    Raises ArgError where no "state" was kept, NonFiniteError.
    """
    states = _points("trace", trace)  # [n,P,V,K]
    if states.shape[2] > states.shape[3]:
        states = states.mT
    step = max(1, NUMBERS // states[0].numel())
    norms, ranks = [], []
    for part in tqdm(states.split(step), delay=2, desc="over time", leave=False):
        if not part.isfinite().all():
            raise NonFiniteError("trace: a state holds NaN or infinity; the weights or the mounted state are broken")
        norm = torch.linalg.vector_norm(part.double(), dim=(-2, -1))
        unit = part / norm[..., None, None].clamp_min(1e-300)
        norms.append(norm)
        # the roots of the eigenvalues of S S^T: singular values above 1e-8, in a third of the time
        ranks.append(effective_rank(torch.linalg.eigvalsh(unit @ unit.mT).clamp_min(0).sqrt()))
    heads = _heads(trace)
    return pd.DataFrame(
        {
            "token": trace.positions.numpy().repeat(len(heads)),
            "layer": np.tile(heads[:, 0], len(states)),
            "head": np.tile(heads[:, 1], len(states)),
            "norm": torch.cat(norms).flatten().numpy(),
            "effective_rank": torch.cat(ranks).flatten().numpy(),
        }
    )


def _named(traces: object) -> dict[str, Trace]:
    if isinstance(traces, Mapping):
        named = {str(name): trace for name, trace in traces.items()}
    else:
        listed = [traces] if isinstance(traces, Trace) else check_items("traces", traces)
        named = {f"text {at}": trace for at, trace in enumerate(listed, 1)}
    if not named:
        raise ArgError("traces: empty; give what model.trace returns")
    for name, trace in named.items():
        if not isinstance(trace, Trace):
            raise ArgError(f"traces: {show(name)}: need a Trace, got {type(trace).__name__}; model.trace makes one")
    return named


def _points(name: str, trace: object) -> Tensor:
    """Return the states of a trace as [n,P,V,K], P being the heads."""
    if not isinstance(trace, Trace):
        raise ArgError(f"{name}: need a Trace, got {type(trace).__name__}; model.trace makes one")
    states = trace["state"]
    return states.flatten(1, 2) if trace.heads is None else states


def _check_alike(named: Mapping[str, Trace], points: Sequence[Tensor]) -> None:
    (first, *_), one = named, next(iter(named.values()))
    for (name, trace), x in zip(named.items(), points, strict=True):
        card, wanted = trace.final.card, one.final.card
        if (card.arch, card.base) != (wanted.arch, wanted.base) or trace.final.wkv.shape != one.final.wkv.shape:
            raise MismatchError(f"traces: {show(name)} and {show(first)} are of different models; trace with one")
        if x.shape[1:] != points[0].shape[1:] or trace.heads != one.heads:
            raise MismatchError(f"traces: {show(name)} and {show(first)} have other heads; trace with the same heads=")


def _heads(trace: Trace) -> np.ndarray:
    """Return layer and head of each kept head, [P,2]."""
    layers, heads = trace.final.wkv.shape[:2]
    pairs = [(i, j) for i in range(layers) for j in range(heads)] if trace.heads is None else trace.heads
    return np.array(pairs, dtype=np.int64)
