"""Generation: a batch of prompts, each from its own initial state, goes on until it ends, stops or is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from rwkvlab.errors import ArgError, show
from rwkvlab.model.interrupt import held_interrupt, stop_reason
from rwkvlab.model.reading import Prompt, pair_rows, prompt_ids
from rwkvlab.model.sampling import Sampling, check_sampling, check_seed
from rwkvlab.model.stream import TextStream
from rwkvlab.model.writing import Row, Writing
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    text: without the stop string. tokens: all that were drawn, those of the stop string included, the end of text (id
    0) not. logprobs: natural log-probability of each token under the model itself: temperature 1, no penalties, no
    bans. state: after the prompt and exactly `tokens`. finish: "stop" (a stop string), "end" (end of text), "length",
    "cancelled" or "interrupted"; stopped in one of the last two ways before its first token, the state is the one that
    it started from. sampling: the settings, with the seed that was used. template: of a chat, else "".
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    state: State
    finish: str
    sampling: Sampling
    template: str = ""


def generate(
    model: Model,
    prompt: Prompt,
    state: State | None = None,
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_p: float = 0.9,
    top_k: int = 0,
    presence: float = 0.0,
    frequency: float = 0.0,
    ban: Iterable[int | str] = (),
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    on_text: Callable[[str], object] | None = None,
    cancel: threading.Event | None = None,
) -> Generation:
    """Go on from `prompt` (text or ids, not empty), read from `state` (None: zeros), which is never changed.

    Sampling is described at `check_sampling`; the same seed gives the same text. End of text (id 0) ends it unless
    banned. on_text receives the pieces of the text as they settle. Ctrl-C, or `cancel` set by another thread, returns
    what there is within one step; a second Ctrl-C does not wait for the step. Raises PromptError, ArgError,
    MismatchError (a state that does not fit), NonFiniteError (broken logits).
    """
    emit = (lambda _, piece: on_text(piece)) if callable(on_text) else on_text
    ids = prompt_ids(model, prompt)
    return generate_batch(
        model, [ids], [state], max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
        presence=presence, frequency=frequency, ban=ban, seed=seed, stop=stop, on_text=emit, cancel=cancel,
    )[0]  # fmt: skip


def generate_batch(
    model: Model,
    prompts: Prompt | Sequence[Prompt],
    states: State | Iterable[State | None] | Mapping[str, State] | None = None,
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_p: float = 0.9,
    top_k: int = 0,
    presence: float = 0.0,
    frequency: float = 0.0,
    ban: Iterable[int | str] = (),
    seed: int | Sequence[int] | None = None,
    stop: str | Sequence[str] = (),
    on_text: Callable[[int, str], object] | None = None,
    cancel: threading.Event | None = None,
) -> list[Generation]:
    """Generate for B rows, each a (prompt, state), together; a single prompt or state serves all rows.

    Prompts may differ in length. Every row has a generator of its own, seeded with `seed` (or the row's entry of a
    list of B), so that a row is what `generate` gives for it alone, up to the rounding of batched matrix products; with
    one seed, equal rows are equal. on_text receives (row, piece). All else is as in `generate`.
    """
    texts, starts = pair_rows(prompts, states)
    ids = [prompt_ids(model, text, "prompt" if len(texts) == 1 else f"prompts[{i}]") for i, text in enumerate(texts)]
    listed = isinstance(seed, Sequence) and not isinstance(seed, str)
    seeds: list[int | None] = list(seed) if listed else [seed] * len(ids)  # type: ignore[arg-type, list-item]
    if len(seeds) != len(ids):
        raise ArgError(f"seed: need one, or one a row: {len(ids)}, got {len(seeds)}")
    common = check_sampling(
        model, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, presence=presence,
        frequency=frequency, ban=ban, stop=stop, seed=0,
    )  # fmt: skip
    settings = [replace(common, seed=check_seed(one)) for one in seeds]
    if on_text is not None and not callable(on_text):
        raise ArgError(f"on_text: need a function, got {show(on_text)}")
    if cancel is not None and not isinstance(cancel, threading.Event):
        raise ArgError(f"cancel: need a threading.Event, got {show(cancel)}")
    decoder = model.tokenizer.decoder
    rows = [
        Row(i, ids[i], starts[i], TextStream(decoder(), setting.stop), setting.seed)
        for i, setting in enumerate(settings)
    ]
    with torch.no_grad(), held_interrupt() as interrupted:
        run = Writing(model, rows, settings[0], on_text, lambda: stop_reason(cancel, interrupted))
        try:
            run.go()
        except KeyboardInterrupt:
            run.rescue()
    return [
        Generation(r.stream.text, tuple(r.tokens), tuple(r.logprobs), r.state, r.finish, s)  # type: ignore[arg-type]
        for r, s in zip(rows, settings, strict=True)
    ]
