"""What is said and expected from many initial states at once, and by the mixed logits of two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rwkvlab.errors import NonFiniteError
from rwkvlab.measure.experiments.parts import Answer, continuation
from rwkvlab.model.parts import Flow
from rwkvlab.model.reading import prompt_ids
from rwkvlab.model.stream import TextStream, Trim
from rwkvlab.model.vocab import END_OF_TEXT
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 512  # (state, prompt) pairs in one batch, fewer where states are large
BYTES = 2**29  # of states in one batch
TOKENS = 2**14  # read in one pass
NUMBERS = 2**22  # of log-probabilities in one block, float64
BROKEN = "logits hold NaN or infinity; the weights or one of the states are broken"


class Voice(NamedTuple):
    """Who speaks: one state, or two by their logits, (1 - t) first + t second; indices into a list of states."""

    first: int
    second: int | None = None
    t: float = 0.0


class Heard(NamedTuple):
    """What V voices make of one question with N answers.

    said: what each writes greedily, as a chat in the template gives it. logprob [V,N]: natural log-probability of each
    answer. kl [V,N]: mean over the answer's tokens of KL(voice ‖ states[0]), nats a token, teacher-forced.
    """

    said: list[str]
    logprob: np.ndarray
    kl: np.ndarray


def rows_at_once(model: Model) -> int:
    """Return how many states a batch may hold."""
    dims = model.dims
    return max(4, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)))


def listen(
    model: Model,
    form: Template,
    questions: Mapping[str, Sequence[Answer]],
    states: Sequence[State],
    voices: Sequence[Voice],
    max_tokens: int,
) -> list[Heard]:
    """Ask each question, given with its answers, in a template, and hear all voices; in the order of the questions.

    The prompts must have the same number of tokens: all pairs of a state and a prompt are read in one batch. Raises
    PromptError, MismatchError (a state that does not fit), NonFiniteError.
    """
    ids = [prompt_ids(model, form.format(question)) for question in questions]
    jobs = [
        (at, prompt_ids(model, continuation(form, one)) if isinstance(one, str) else list(one))
        for at, answers in enumerate(questions.values())
        for one in answers
    ]
    width = len(ids)
    with torch.no_grad():
        # rows go state by state, and question by question within
        flow = model.begin(states).pick([row for row in range(len(states)) for _ in range(width)])
        tokens = torch.tensor(ids).repeat(len(states), 1)
        *before, end = tokens.split(max(16, TOKENS // len(tokens)), dim=1)
        for part in before:
            model.run(part, flow, None)
        logits = _run(model, end, flow, "last")
        said = _say(model, form, logits, flow, width, voices, max_tokens)
        table = _judge(model, logits, flow, width, jobs, voices)
    mine = [[number for number, (question, _) in enumerate(jobs) if question == at] for at in range(width)]
    return [Heard(said[at::width], table[0][:, mine[at]], table[1][:, mine[at]]) for at in range(width)]


def _judge(
    model: Model, logits: Tensor, flow: Flow, width: int, jobs: Sequence[tuple[int, list[int]]], voices: Sequence[Voice]
) -> np.ndarray:
    """Return log-probability and KL [2,V,J] of the answers `jobs`, (question, ids); `flow` has read the questions."""
    out, states = np.empty((2, len(voices), len(jobs))), len(logits) // width
    lengths: dict[int, list[int]] = {}
    for number, (_, ids) in enumerate(jobs):
        lengths.setdefault(len(ids), []).append(number)
    for length, same in lengths.items():
        fits = NUMBERS // (model.dims.vocab * (states + len(voices)) * length)
        step = max(1, min(fits, rows_at_once(model) // states))
        for first in range(0, len(same), step):
            part = same[first : first + step]
            rows = [state * width + jobs[number][0] for state in range(states) for number in part]
            wanted = torch.tensor([jobs[number][1] for number in part])
            out[:, :, part] = _teach(model, logits[rows], flow.pick(rows), wanted, voices)
    return out


def _teach(model: Model, logits: Tensor, flow: Flow, ids: Tensor, voices: Sequence[Voice]) -> np.ndarray:
    """Return summed log-probability and mean KL [2,V,J] of ids [J,n]; the rows [S*J] go state by state."""
    many, length = ids.shape
    states = len(logits) // many
    fed, ids = ids.repeat(states, 1), ids.to(logits.device)
    piece = max(1, NUMBERS // (model.dims.vocab * many * (states + len(voices))))
    total = torch.zeros(2, len(voices), many, dtype=torch.float64, device=logits.device)
    now, at = logits[:, None], 0
    while True:
        wanted = ids[:, at : at + now.shape[1]]
        exact = now.unflatten(0, (states, many)).double()  # [S,J,w,vocab]
        reference = exact[0].log_softmax(dim=-1)
        logp = torch.stack([_mixed(exact, voice) for voice in voices]).log_softmax(dim=-1)  # [V,J,w,vocab]
        total[0] += logp.gather(-1, wanted.expand(len(voices), -1, -1)[..., None]).sum((-2, -1))
        total[1] += (logp.exp() * (logp - reference)).sum((-2, -1)) / length
        at += wanted.shape[1]
        if at == length:
            break
        now = _run(model, fed[:, at - 1 : min(at - 1 + piece, length - 1)], flow, "all")
    if not torch.isfinite(total).all():
        raise NonFiniteError(BROKEN)
    total[1].clamp_min_(0)
    return total.cpu().numpy()


def _mixed(logits: Tensor, voice: Voice) -> Tensor:
    """Return what a voice makes of the logits [S,…] of all states."""
    if voice.second is None:
        return logits[voice.first]
    return (1 - voice.t) * logits[voice.first] + voice.t * logits[voice.second]


def _say(
    model: Model, form: Template, logits: Tensor, flow: Flow, width: int, voices: Sequence[Voice], max_tokens: int
) -> list[str]:
    """Return what each voice writes after each question, voice by voice; two flows that it mixes go in lockstep."""
    said: dict[tuple[int, int], str] = {}
    for mixing in (False, True):
        pairs = [
            (number, at) for number, v in enumerate(voices) if (v.second is not None) == mixing for at in range(width)
        ]
        step = max(1, rows_at_once(model) // (2 if mixing else 1))
        for begin in range(0, len(pairs), step):
            part = pairs[begin : begin + step]
            rows = [[voices[number].first * width + at for number, at in part]]
            share = None
            if mixing:
                rows.append([(voices[number].second or 0) * width + at for number, at in part])
                share = torch.tensor([[voices[number].t] for number, _ in part], device=logits.device)
            both = [logits[some] for some in rows]
            written = _write(model, form, both, [flow.pick(some) for some in rows], share, max_tokens)
            said |= dict(zip(part, written, strict=True))
    return [said[number, at] for number in range(len(voices)) for at in range(width)]


def _write(
    model: Model, form: Template, logits: list[Tensor], flows: list[Flow], share: Tensor | None, max_tokens: int
) -> list[str]:
    """Write greedily from B rows that have read their prompts, by the logits of one flow, or of two mixed.

    share [B,1] is that of the second flow. The flows are used up. What is drawn, and what of it is the answer, is as in
    `chat_batch` with temperature 0 and no penalties.
    """
    streams = [TextStream(model.tokenizer.decoder(), form.stop) for _ in logits[0]]
    holes, live = model.tokenizer.holes(model.dims.vocab), list(range(len(streams)))
    for left in range(max_tokens, 0, -1):
        mixed = logits[0] if share is None else torch.lerp(logits[0], logits[1], share)
        if not torch.isfinite(mixed).all():
            raise NonFiniteError(BROKEN)
        if holes:
            mixed = mixed.index_fill(-1, torch.tensor(holes, device=mixed.device), -torch.inf)
        drawn = mixed.argmax(dim=-1).tolist()
        for row, token in zip(live, drawn, strict=True):
            if token != END_OF_TEXT:
                streams[row].push(token)
        keep = [at for at, token in enumerate(drawn) if token != END_OF_TEXT and not streams[live[at]].stopped]
        if not keep or left == 1:
            break
        if len(keep) < len(live):
            live, flows = [live[at] for at in keep], [flow.pick(keep) for flow in flows]
            share = None if share is None else share[keep]
        fed = torch.tensor([[drawn[at]] for at in keep])
        logits = [_run(model, fed, flow, "last") for flow in flows]
    for stream in streams:
        stream.flush()
    return [_answer(stream.text, form) for stream in streams]


def _run(model: Model, tokens: Tensor, flow: Flow, which: str) -> Tensor:
    logits = model.run(tokens, flow, which)
    assert logits is not None  # they are what was asked for
    return logits


def _answer(text: str, form: Template) -> str:
    trim = Trim(form.lead)
    return trim.push(text) + trim.flush() if form.clean else text
