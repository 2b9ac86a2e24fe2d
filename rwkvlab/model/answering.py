"""Answering: prompts that stand in a template already are answered in one batch, and the answers trimmed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rwkvlab.model.generate import Generation, generate_batch
from rwkvlab.model.stream import TextStream, Trim
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def answer_prompts(
    model: Model,
    prompts: Sequence[str],
    starts: Sequence[State | None],
    form: Template,
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_p: float = 0.2,
    top_k: int = 0,
    presence: float = 0.3,
    frequency: float = 0.3,
    ban: Iterable[int | str] = (),
    seed: int | Sequence[int] | None = None,
    stop: str | Sequence[str] | None = None,
    on_text: Callable[[int, str], object] | None = None,
    cancel: threading.Event | None = None,
) -> list[Generation]:
    """Return what the model answers to B prompts that `form` has made, from B starts; as `chat_batch`."""
    trims = [Trim(form.lead) if form.clean else None for _ in prompts]

    def emit(row: int, piece: str) -> None:
        trim = trims[row]
        piece = piece if trim is None else trim.push(piece)
        if piece and on_text is not None:
            on_text(row, piece)

    out = generate_batch(
        model, list(prompts), list(starts), max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
        presence=presence, frequency=frequency, ban=ban, seed=seed, stop=form.stop if stop is None else stop,
        on_text=emit, cancel=cancel,
    )  # fmt: skip
    answers = []
    for row, (one, trim) in enumerate(zip(out, trims, strict=True)):
        rest = "" if trim is None else trim.flush()
        if rest and on_text is not None:
            on_text(row, rest)
        state = one.state.replace(card=one.state.card.replace(template=form.name))
        answers.append(replace(one, text=_trimmed(one.text, form), template=form.name, state=state))
    return answers


def _trimmed(text: str, form: Template) -> str:
    trim = Trim(form.lead)
    return trim.push(text) + trim.flush() if form.clean else text


def kept_text(model: Model, out: Generation) -> str:
    """Return the text of a generation in front of its stop string, untrimmed."""
    stream = TextStream(model.tokenizer.decoder(), out.sampling.stop)
    for token in out.tokens:
        stream.push(token)
    return stream.text + stream.flush()


def overlap(text: str, separator: str) -> int:
    """Return how many characters of `separator` the end of `text` already holds."""
    return next(size for size in range(len(separator), -1, -1) if text.endswith(separator[:size]))
