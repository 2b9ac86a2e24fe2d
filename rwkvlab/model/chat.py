"""Chat: questions asked in the template that a state was tuned for, one at a time or as a conversation."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import ArgError, show
from rwkvlab.model.generate import Generation, generate_batch
from rwkvlab.model.reading import as_list, pair_rows
from rwkvlab.model.stream import TextStream, Trim
from rwkvlab.states.state import State, check_fits
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def chat(
    model: Model,
    question: str,
    state: State | None = None,
    *,
    template: str | Template = "world",
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_p: float = 0.2,
    top_k: int = 0,
    presence: float = 0.3,
    frequency: float = 0.3,
    ban: Iterable[int | str] = (),
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    on_text: Callable[[str], object] | None = None,
    cancel: threading.Event | None = None,
) -> Generation:
    """Ask one question from `state` (None: zeros) in a template; returns the answer, its text trimmed.

    template: "world", "g1", "g1-fast", "raw", a Template, or "auto": the one on the state's card, else "world". The
    defaults of sampling are nearly greedy, as in the demo that the official states were published with. stop: None
    takes the template's. The question is cleaned as `Template` says; the template's name is in the result. A warning
    tells where the state's card names another template. Errors as in `generate`.
    """
    emit = (lambda _, piece: on_text(piece)) if callable(on_text) else on_text
    return chat_batch(
        model, question, [state], template=template, max_tokens=max_tokens, temperature=temperature, top_p=top_p,
        top_k=top_k, presence=presence, frequency=frequency, ban=ban, seed=seed, stop=stop, on_text=emit, cancel=cancel,
    )[0]  # fmt: skip


def chat_batch(
    model: Model,
    questions: str | Sequence[str],
    states: State | Iterable[State | None] | Mapping[str, State] | None = None,
    *,
    template: str | Template = "world",
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
    """Ask B questions from B states in one batch and one template ("auto": the first state's); as `chat`."""
    texts, starts = pair_rows(as_list(questions), states)
    form = choose_template(template, starts)
    names = ["question"] if len(texts) == 1 else [f"questions[{i}]" for i in range(len(texts))]
    prompts = [form.format(text, name) for text, name in zip(texts, names, strict=True)]  # type: ignore[arg-type]
    trims = [Trim(form.lead) if form.clean else None for _ in prompts]

    def emit(row: int, piece: str) -> None:
        trim = trims[row]
        piece = piece if trim is None else trim.push(piece)
        if piece and on_text is not None:
            on_text(row, piece)

    out = generate_batch(
        model, prompts, starts, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
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


def choose_template(template: str | Template, states: Sequence[State | None] = ()) -> Template:
    """Return the template asked for, or for "auto" the first that a card names; warns where a card names another."""
    named = [state.card.template for state in states if state is not None and state.card.template]
    if isinstance(template, str) and template == "auto":
        return get_template(named[0] if named else "world")
    chosen = get_template(template)
    for state in states:
        if state is not None and state.card.template not in ("", chosen.name):
            warnings.warn(
                f"state {show(state.card.name)} was tuned for the template {show(state.card.template)}, "
                f'the question is asked in {show(chosen.name)}; pass template="auto"',
                UserWarning,
                stacklevel=3,
            )
    return chosen


@dataclass(frozen=True)
class Turn:
    """One question and its answer; tokens is all that the model read and wrote for it."""

    question: str
    answer: str
    tokens: tuple[int, ...]


class Conversation:
    """Several turns with one model: `ask`, look at `turns`, `switch` to another initial state in the middle.

    state is what the model knows now: it has read `turns`, thoughts of a thinking model included.
    """

    def __init__(
        self, model: Model, state: State | None = None, *, template: str | Template = "world", **sampling: Any
    ) -> None:
        """Start from `state` (None: zeros); sampling holds defaults for `ask`, those of `chat` where left out."""
        self._model = model
        self.state = self._fitting(state)
        self.template = choose_template(template, [state])
        self.sampling = dict(sampling)
        self.turns: tuple[Turn, ...] = ()

    def ask(self, question: str, **options: Any) -> Generation:
        """Ask the next question; options are those of `chat` but state and template, for this turn only.

        Between two turns stands exactly the template's separator: where an answer wrote beyond it, the turn is read
        again without the rest, and the result's state is after that. A turn that was stopped before its first token is
        not kept; one stopped later is kept as far as it went.
        """
        model, form = self._model, self.template
        gap = form.separator[_overlap(self._last(), form.separator) :] if self.turns else ""
        asked = replace(form, prompt=gap + form.prompt)
        out = chat(model, question, self.state, template=asked, **(self.sampling | options))
        if out.finish in ("cancelled", "interrupted") and not out.tokens:
            return out
        read = model.encode(asked.format(question))
        rest = model.tokenizer.decode(out.tokens)[len(kept := _kept(model, out)) :]
        if out.finish == "stop" and not form.separator.startswith(rest):
            tokens = read + model.encode(kept + form.separator)
            out = replace(out, state=model.read(tokens, self.state))
        else:
            tokens = read + list(out.tokens)
        self.turns, self.state = (*self.turns, Turn(question, out.text, tuple(tokens))), out.state
        return out

    def switch(self, state: State | None) -> State:
        """Read the whole conversation again, token by token, from another initial state; returns where that leads.

        Nothing changes if this fails or is interrupted.
        """
        start = self._fitting(state)
        choose_template(self.template, [state])
        tokens = [token for turn in self.turns for token in turn.tokens]
        self.state = self._model.read(tokens, start) if tokens else start
        return self.state

    def _fitting(self, state: State | None) -> State:
        if state is None:
            return self._model.zero()
        if not isinstance(state, State):
            raise ArgError(f"state: need a State or None, got {show(type(state).__name__)}")
        check_fits(state, self._model)
        return state

    def _last(self) -> str:
        return self._model.tokenizer.decode(self.turns[-1].tokens)


def _trimmed(text: str, form: Template) -> str:
    trim = Trim(form.lead)
    return trim.push(text) + trim.flush() if form.clean else text


def _kept(model: Model, out: Generation) -> str:
    """Return the text of a generation in front of its stop string, untrimmed."""
    stream = TextStream(model.tokenizer.decoder(), out.sampling.stop)
    for token in out.tokens:
        stream.push(token)
    return stream.text + stream.flush()


def _overlap(text: str, separator: str) -> int:
    """Return how many characters of `separator` the end of `text` already holds."""
    return next(size for size in range(len(separator), -1, -1) if text.endswith(separator[:size]))
