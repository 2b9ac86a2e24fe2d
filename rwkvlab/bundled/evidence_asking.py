"""Many questions from many starts at once: which are answered exactly, how probable each answer is, what is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwkvlab.model.engine import Model
from rwkvlab.model.parts import Flow
from rwkvlab.model.vocab import END_OF_TEXT
from rwkvlab.states.state import State

FILLED = -1  # stands for no row, in a batch that is written for
LOOK = 8  # tokens, after which rows that have ended are left out
ROWS = {"cuda": 1024, "cpu": 64}  # questions read at once
CELLS = {"cuda": 2**28, "cpu": 2**24}  # of logits at once, where texts are scored


class Ask(NamedTuple):
    """A question: from `start` (None: zeros) `before` is read, its token-shifts kept or not, then `prompt`."""

    prompt: Sequence[int]
    answer: Sequence[int] = ()
    start: State | None = None
    before: Sequence[int] = ()
    shifts: bool = True


class Said(NamedTuple):
    """exact: written greedily, the answer comes, and then its end. logprob: natural, of the answer without its end.

    text: what is written instead, up to where it ends; None where the answer is exact, or nothing was written.
    """

    exact: bool
    logprob: float
    text: str | None = None


@torch.no_grad()
def ask(model: Model, asks: Sequence[Ask], stop: str, most: int = 64) -> list[Said]:
    """Ask all questions, greedily; an answer ends with `stop` or the end of text.

    Answers are read after their prompts in one pass, which tells log-probabilities and whether greedy writing would
    give them: where each of their tokens is the most probable one, and then one that ends them. Only where it would
    not, something is written: `most` tokens at most, nothing for 0.
    """
    ends, rows, said = ends_of(model, stop), ROWS[model.device.type], []
    for at in range(0, len(asks), rows):
        said += _block(model, asks[at : at + rows], ends, stop, most)
    return said


def ends_of(model: Model, stop: str) -> Tensor:
    """Return the ids that end an answer: end of text, and those whose text begins with `stop`."""
    tokens: dict[int, bytes] = model.tokenizer.tokens  # type: ignore[attr-defined]
    found = [token for token, data in tokens.items() if data.startswith(stop.encode())]
    return torch.tensor([END_OF_TEXT, *found], device=model.device)


@torch.no_grad()
def begun(model: Model, asks: Sequence[Ask]) -> Flow:
    """Return the running states of a batch in front of the prompts."""
    starts = {id(one.start): one.start for one in asks}
    at = {key: row for row, key in enumerate(starts)}
    flow = model.begin(list(starts.values())).pick([at[id(one.start)] for one in asks])
    if any(len(one.before) for one in asks):
        flow, _ = _read(model, [one.before for one in asks], flow)
        bare = [row for row, one in enumerate(asks) if len(one.before) and not one.shifts]
        for shift in (*flow.att, *flow.ffn):
            shift[bare] = 0
    return flow


def _block(model: Model, asks: Sequence[Ask], ends: Tensor, stop: str, most: int) -> list[Said]:
    flow, first = _read(model, [one.prompt for one in asks], begun(model, asks))
    kept = flow.pick(list(range(len(asks))))
    sizes = torch.tensor([len(one.answer) for one in asks], device=model.device)
    answers = _padded([one.answer for one in asks]).to(model.device)
    after = model.run(answers, flow, "all")
    assert after is not None
    every = torch.arange(answers.shape[1], device=model.device)
    counted = every < sizes[:, None]
    greedy = torch.cat((first.argmax(-1)[:, None], after.argmax(-1)), dim=1)  # [B,A+1]: of the answer and its end
    same = ((greedy[:, :-1] == answers) | ~counted).all(1)
    exact = same & torch.isin(greedy.gather(1, sizes[:, None])[:, 0], ends)
    logprob = _logprobs(first, answers[:, 0]) + (_logprobs(after[:, :-1], answers[:, 1:]) * counted[:, 1:]).sum(1)
    texts: dict[int, str] = {}
    others = (~exact).nonzero()[:, 0].tolist()
    if most and others:
        written = _written(model, first[others], kept.pick(others), ends, most)
        texts = {row: model.tokenizer.decode(ids).split(stop)[0] for row, ids in zip(others, written, strict=True)}
    pairs = zip(exact.tolist(), logprob.tolist(), strict=True)
    return [Said(right, value, texts.get(row)) for row, (right, value) in enumerate(pairs)]


def _written(model: Model, logits: Tensor, flow: Flow, ends: Tensor, most: int) -> list[list[int]]:
    """Return what is written greedily from the logits [B,vocab] after the prompts, up to what ends it."""
    written: list[list[int]] = [[] for _ in logits]
    tokens: list[Tensor] = []
    token, flow, places = _shrunk(logits.argmax(-1), flow, list(range(len(logits))))
    for step in range(1, most + 1):
        tokens.append(token)
        if step % LOOK == 0 or step == most:
            block = torch.stack(tokens, 1)  # [B,LOOK]
            ended = torch.isin(block, ends)
            sizes = torch.where(ended.any(1), ended.int().argmax(1), block.shape[1]).tolist()
            for at, (row, ids, size) in enumerate(zip(places, block.tolist(), sizes, strict=True)):
                if row != FILLED:
                    written[row] += ids[:size]
                    places[at] = row if size == len(ids) else FILLED
            tokens = []
            if step == most or set(places) <= {FILLED}:
                break
            token, flow, places = _shrunk(token, flow, places)
        after = model.run(token[:, None], flow, "last")
        assert after is not None
        token = after.argmax(-1)
    return written


def _shrunk(token: Tensor, flow: Flow, places: list[int]) -> tuple[Tensor, Flow, list[int]]:
    """Return a batch with as many places as `size_of` says, the rest of them filled."""
    live = [at for at, row in enumerate(places) if row != FILLED]
    size = size_of(len(live), token.device.type)
    if size == len(places):
        return token, flow, places
    kept = live + live[-1:] * (size - len(live))
    return token[kept], flow.pick(kept), [places[at] for at in live] + [FILLED] * (size - len(live))


def size_of(rows: int, device: str) -> int:
    """Return how large a batch is made: on a GPU a power of two, as each size is recorded as a graph."""
    return rows if device == "cpu" else 1 << (rows - 1).bit_length()


@torch.no_grad()
def token_logprobs(model: Model, asks: Sequence[Ask]) -> list[np.ndarray]:
    """Return for each `prompt`, read as a text, the natural log-probabilities of all its tokens but the first."""
    order = sorted(range(len(asks)), key=lambda at: len(asks[at].prompt))
    found: dict[int, np.ndarray] = {}
    rows = max(1, CELLS[model.device.type] // (model.dims.vocab * len(asks[order[-1]].prompt)))
    for at in range(0, len(order), rows):
        block = [asks[i] for i in order[at : at + rows]]
        tokens = _padded([one.prompt for one in block]).to(model.device)
        logits = model.run(tokens[:, :-1], begun(model, block), "all")
        assert logits is not None
        values = _logprobs(logits, tokens[:, 1:]).cpu().double().numpy()
        for i, one, row in zip(order[at : at + rows], block, values, strict=True):
            found[i] = row[: len(one.prompt) - 1]
    return [found[at] for at in range(len(asks))]


def _read(model: Model, ids: Sequence[Sequence[int]], flow: Flow) -> tuple[Flow, Tensor]:
    """Read texts of any lengths; returns the running states after each and the logits [B,vocab] of what comes next."""
    groups: dict[int, list[int]] = {}
    for row, tokens in enumerate(ids):
        groups.setdefault(len(tokens), []).append(row)
    parts = []
    for size, rows in groups.items():
        part = flow.pick(rows)
        logits = model.run(torch.tensor([list(ids[row]) for row in rows]), part, "last") if size else None
        parts.append((part, torch.zeros(len(rows), model.dims.vocab) if logits is None else logits))
    order = [row for rows in groups.values() for row in rows]
    back = np.argsort(order).tolist()
    return Flow.cat([part for part, _ in parts]).pick(back), torch.cat([x.to(model.device) for _, x in parts])[back]


def _padded(ids: Sequence[Sequence[int]]) -> Tensor:
    """Return ids [B,T], filled up with the end of text."""
    longest = max(map(len, ids))
    return torch.tensor([[*row, *[END_OF_TEXT] * (longest - len(row))] for row in ids])


def _logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of ids [...] under logits [...,vocab]."""
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)
