"""From logits to the next token: penalties, banned tokens, top-p, top-k and temperature, for all rows at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, NonFiniteError, show
from rwkvlab.shapes import check_items, check_range

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

NOTHING_LEFT = "ban: no token is left to draw from; ban fewer"
NEAR = (256, 4096)  # how many of the likeliest tokens are looked at before all are sorted


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; `check_sampling` makes it and says what each field means. seed is the one really used."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    presence: float
    frequency: float
    ban: tuple[int, ...]
    stop: tuple[str, ...]
    seed: int


def check_sampling(
    model: Model,
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_p: float = 0.9,
    top_k: int = 0,
    presence: float = 0.0,
    frequency: float = 0.0,
    ban: Iterable[int | str] = (),
    stop: str | Sequence[str] = (),
    seed: int | None = None,
) -> Sampling:
    """Return the checked settings of a generation.

    max_tokens >= 0 is where it ends at the latest. temperature >= 0; 0 is greedy (ties: the lowest id). top_p in [0,1]
    keeps the likeliest tokens until their probabilities, at temperature 1, sum to it; top_k > 0 keeps that many; tokens
    as likely as the last one kept stay too. presence and frequency, in [-100, 100], are taken from the logits of tokens
    already generated: logit - presence - frequency * count. The order is that of PyPI's `rwkv`: penalties and bans,
    top-p and top-k, then temperature. ban: ids, or strings that are one token each. stop: strings that end the text.
    seed: None draws a fresh one. Raises ArgError with the name and range.
    """
    temperature = check_range("temperature", temperature, 0.0, 1e6)
    check_range("top_p", top_p, 0.0, 1.0)
    check_range("presence", presence, -100.0, 100.0)
    check_range("frequency", frequency, -100.0, 100.0)
    check_range("max_tokens", max_tokens, 0, 2**40, whole=True)
    check_range("top_k", top_k, 0, 2**40, whole=True)
    seed = check_seed(seed)
    stops = (stop,) if isinstance(stop, str) else tuple(check_items("stop", stop))
    if not all(isinstance(text, str) and text for text in stops):
        raise ArgError(f"stop: need non-empty strings, got {show(stop)}")
    banned = _banned(model, (ban,) if isinstance(ban, (str, int)) else check_items("ban", ban))
    return Sampling(max_tokens, temperature, top_p, top_k, presence, frequency, banned, stops, seed)


def check_seed(seed: int | None) -> int:
    """Return the seed, or a fresh one for None; raises ArgError."""
    if seed is None:
        return torch.Generator().seed() % 2**31
    return int(check_range("seed", seed, 0, 2**63 - 1, whole=True))


def _banned(model: Model, ban: Iterable[int | str]) -> tuple[int, ...]:
    ids = []
    for item in ban:
        if isinstance(item, str):
            tokens = model.tokenizer.encode(item)
            if len(tokens) != 1:
                raise ArgError(
                    f"ban: {show(item)} is {len(tokens)} tokens {show(tokens)}; ban ids, or one-token strings"
                )
            ids += tokens
        else:
            ids.append(int(check_range("ban", item, 0, model.dims.vocab - 1, whole=True)))
    return tuple(sorted(set(ids)))


def adjusted(
    logits: Tensor, counts: Sequence[dict[int, int]], sampling: Sampling, holes: Sequence[int] = (), step: int = 0
) -> Tensor:
    """Return logits [B,vocab] with penalties for the `counts` of each row, bans and `holes` (ids without text) applied.

    Raises NonFiniteError where the model's logits hold NaN or +inf, ArgError where bans leave nothing to draw.
    """
    if not torch.isfinite(logits).all():
        check_logits(logits, step)
    scores = penalised(logits, counts, sampling, holes)
    if (sampling.ban or holes) and torch.isneginf(scores).all(dim=-1).any():
        raise ArgError(NOTHING_LEFT)
    return scores


def penalised(logits: Tensor, counts: Sequence[dict[int, int]], sampling: Sampling, holes: Sequence[int]) -> Tensor:
    """Return logits with penalties, bans and holes, and nothing checked."""
    logits = logits.clone()
    if sampling.presence or sampling.frequency:
        for row, seen in enumerate(counts):
            if seen:
                ids = torch.tensor(list(seen), device=logits.device)
                times = torch.tensor(list(seen.values()), device=logits.device, dtype=logits.dtype)
                logits[row, ids] -= sampling.presence + sampling.frequency * times
    out = [*sampling.ban, *holes]
    if out:
        logits[:, out] = -math.inf
    return logits


def check_logits(logits: Tensor, step: int) -> None:
    """Raise NonFiniteError with the first row that holds NaN or +inf, or nothing but -inf."""
    bad = (torch.isnan(logits) | (logits == math.inf)).any(dim=-1) | torch.isneginf(logits).all(dim=-1)
    if bad.any():
        row = int(bad.nonzero()[0])
        what = "NaN or infinite; the weights or the mounted state are broken"
        raise NonFiniteError(f"logits of row {row} for token {step} are {what}")


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return which tokens may be drawn, ids [B,n] in ascending order, and with what probability, [B,n] float64.

    From adjusted logits [B,vocab]; n is as small as top-p and top-k allow, ids that are cut have probability 0.
    """
    vocab = logits.shape[-1]
    if sampling.temperature == 0:
        ids = logits.argmax(dim=-1, keepdim=True)
        return ids, torch.ones_like(ids, dtype=torch.float64)
    if sampling.top_p == 1 and not 0 < sampling.top_k < vocab:
        p = _tempered(logits, sampling.temperature)
        return torch.arange(vocab, device=logits.device).expand(p.shape), p
    p = logits.softmax(dim=-1)
    for near in (*(n for n in NEAR if n < vocab), vocab):
        best, ids = p.topk(near, dim=-1)
        best = best.double()
        floor = _least_kept(best, sampling)
        if bool((best[:, -1:] < floor).all()):  # nothing beyond the best ones is as likely as the last that stays
            break
    ids, order = ids.sort(dim=-1)
    kept = best.log().masked_fill(best < floor, -math.inf).gather(-1, order)
    return ids, _tempered(kept, sampling.temperature)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Return probabilities, float64; the largest logit is taken off first, so that a tiny temperature is greedy."""
    exact = logits.double()
    return ((exact - exact.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)


def _least_kept(best: Tensor, sampling: Sampling) -> Tensor:
    """Return the lowest probability that stays, [B,1]; that of the last of `best` [B,n] where these are too few."""
    floor = torch.zeros_like(best[:, :1])
    if sampling.top_p < 1:
        enough = best.cumsum(dim=-1) >= sampling.top_p
        enough[:, -1] = True
        floor = best.gather(-1, enough.int().argmax(dim=-1, keepdim=True))
    if sampling.top_k > 0:
        floor = floor.maximum(best[:, min(sampling.top_k, best.shape[-1]) - 1, None])
    return floor


def draw(ids: Tensor, p: Tensor, generators: Sequence[torch.Generator]) -> list[int]:
    """Draw one of ids [B,n] a row with probabilities p [B,n], by one uniform number of the row's own generator.

    The number is looked up in the cumulative sum in the order of ids, so that nearly equal rows draw alike.
    """
    uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in generators]).to(p.device)
    total = p.cumsum(dim=-1)
    at = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)
    last = p.shape[-1] - 1 - (p > 0).flip(-1).int().argmax(dim=-1, keepdim=True)
    return ids.gather(-1, at.minimum(last))[:, 0].tolist()


def choose(scores: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """Return the next token of each row from its adjusted logits [B,vocab]."""
    ids, p = candidates(scores, sampling)
    return ids[:, 0].tolist() if sampling.temperature == 0 else draw(ids, p, generators)
