"""Scoring: how probable each answer is after each prompt, from each initial state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from rwkvlab.errors import ArgError, NonFiniteError, show
from rwkvlab.model.parts import Flow
from rwkvlab.model.reading import Prompt, as_list, prompt_ids, read_prompts
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 64  # texts read at once
LOGITS = 2**24  # numbers held in one block of logits (64 MiB)


@dataclass
class _Answer:
    """One answer to one prompt from one state, to be scored; indices and ids."""

    prompt: int
    answer: int
    state: int
    ids: list[int]
    logprob: float = 0.0


def score(
    model: Model,
    prompts: Prompt | Sequence[Prompt],
    answers: Prompt | Sequence[Prompt | Sequence[Prompt]],
    states: State | Iterable[State | None] | Mapping[str, State] | None = None,
) -> pd.DataFrame:
    """Return the log-probability of each answer, from each state, one row an answer.

    prompts: one or several, text or ids, not empty. answers: for each prompt one answer, or a list of candidates. An
    answer is cut into tokens apart from its prompt. states: one, several, a mapping of names, or None (zeros).
    Columns: prompt, answer (indices from 0; answer counts the candidates of its prompt), state (the mapping's key, else
    the card's name, else "zero" or "state 1" …), prompt_text, answer_text (None where ids were given), tokens (of the
    answer), logprob (natural, of all its tokens at temperature 1), logprob_per_token. Rows are in the order of states,
    prompts, answers. Raises PromptError, ArgError, MismatchError, NonFiniteError.
    """
    texts = as_list(prompts)
    if not texts:
        raise ArgError("prompts: empty; give at least one")
    wanted = _candidates(answers, len(texts))
    names, starts = name_states(states)
    ids = [prompt_ids(model, text, f"prompts[{i}]") for i, text in enumerate(texts)]
    cut = [[prompt_ids(model, a, f"answers[{i}][{j}]") for j, a in enumerate(row)] for i, row in enumerate(wanted)]
    jobs = [
        _Answer(i, j, s, answer)
        for s in range(len(starts))
        for i, row in enumerate(cut)
        for j, answer in enumerate(row)
    ]
    pairs: dict[tuple[int, int], list[_Answer]] = {}
    for job in jobs:
        pairs.setdefault((job.prompt, job.state), []).append(job)
    todo = sorted(pairs, key=lambda pair: len(ids[pair[0]]))
    with torch.no_grad():
        for at in range(0, len(todo), ROWS):
            block = todo[at : at + ROWS]
            read = read_prompts(model, [ids[i] for i, _ in block], [starts[s] for _, s in block], lambda: "")
            assert read is not None  # only a reason to stop gives None
            _score_block(model, *read, [pairs[pair] for pair in block])
    rows = [
        {
            "prompt": job.prompt,
            "answer": job.answer,
            "state": names[job.state],
            "prompt_text": _text(texts[job.prompt]),
            "answer_text": _text(wanted[job.prompt][job.answer]),
            "tokens": len(job.ids),
            "logprob": job.logprob,
            "logprob_per_token": job.logprob / len(job.ids),
        }
        for job in jobs
    ]
    return pd.DataFrame(rows)


def name_states(
    states: State | Iterable[State | None] | Mapping[str, State] | None,
) -> tuple[list[str], list[State | None]]:
    """Return names and states; ArgError for what is not a state."""
    if isinstance(states, Mapping):
        names, items = [str(name) for name in states], list(states.values())
    else:
        items = list(states) if isinstance(states, Iterable) else [states]
        names = ["zero" if s is None else s.card.name if isinstance(s, State) else "" for s in items]
        names = [name or f"state {i}" for i, name in enumerate(names)]
    for name, state in zip(names, items, strict=True):
        if state is not None and not isinstance(state, State):
            raise ArgError(f"states: {show(name)}: need a State or None, got {show(type(state).__name__)}")
    if not items:
        raise ArgError("states: empty; give a State, several, or None for zeros")
    return names, items


def _candidates(answers: Prompt | Sequence[Prompt | Sequence[Prompt]], prompts: int) -> list[list[Prompt]]:
    listed = as_list(answers)
    if prompts == 1 and len(listed) > 1:
        return [listed]
    if len(listed) != prompts:
        raise ArgError(f"answers: need one entry a prompt, {prompts}; got {len(listed)}")
    rows = [as_list(row) for row in listed]
    if not all(rows):
        raise ArgError("answers: an entry is an empty list; give each prompt an answer")
    return rows


def _score_block(model: Model, logits: Tensor, flow: Flow, answers: list[list[_Answer]]) -> None:
    """Score the answers of the rows of `flow`, which has read their prompts; answers of equal length go together."""
    groups: dict[int, list[tuple[int, _Answer]]] = {}
    for row, found in enumerate(answers):
        for job in found:
            groups.setdefault(len(job.ids), []).append((row, job))
    for length, group in groups.items():
        step = max(1, min(ROWS, LOGITS // (model.dims.vocab * length)))
        for at in range(0, len(group), step):
            part = group[at : at + step]
            rows, ids = [row for row, _ in part], torch.tensor([job.ids for _, job in part])
            given = _logprobs(logits[rows], ids[:, 0])
            if length > 1:
                given = given + _rest(model, ids, flow.pick(rows))
            for (_, job), value in zip(part, given.tolist(), strict=True):
                job.logprob = value


def _rest(model: Model, ids: Tensor, flow: Flow) -> Tensor:
    """Return the summed log-probability [B] of ids[:, 1:], in pieces that keep the logits small."""
    total = torch.zeros(len(ids), dtype=torch.float64)
    width = max(1, LOGITS // (model.dims.vocab * len(ids)))
    for piece in range(0, ids.shape[1] - 1, width):
        fed, wanted = ids[:, piece : piece + width], ids[:, piece + 1 : piece + width + 1]
        logits = model.run(fed[:, : wanted.shape[1]], flow, "all")
        total += _logprobs(logits, wanted).sum(dim=-1)  # type: ignore[arg-type]
    return total


def _logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of ids [...] under logits [...,vocab], float64 on the CPU."""
    picked = logits.gather(-1, ids.to(logits.device)[..., None])[..., 0]
    value = (picked.double() - logits.double().logsumexp(dim=-1)).cpu()
    if torch.isnan(value).any():
        raise NonFiniteError("logits hold NaN or infinity; the weights or the mounted state are broken")
    return value


def _text(prompt: Prompt) -> str | None:
    return prompt if isinstance(prompt, str) else None
