"""Chat: questions asked in the template that a state was tuned for, one at a time or as a conversation."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rwkvlab.errors import ArgError, Cancelled, show
from rwkvlab.model.answering import answer_prompts, kept_text, overlap
from rwkvlab.model.flow import row_state
from rwkvlab.model.generate import Generation
from rwkvlab.model.reading import as_list, pair_rows, read_prompts
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
    return answer_prompts(
        model, prompts, starts, form, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
        presence=presence, frequency=frequency, ban=ban, seed=seed, stop=stop, on_text=on_text, cancel=cancel,
    )  # fmt: skip


def choose_template(template: str | Template, states: Sequence[State | None] = ()) -> Template:
    """Return the template asked for, or for "auto" the first that a card names; warns where a card names another."""
    named = [state.card.template for state in states if state is not None and state.card.template]
    if isinstance(template, str) and template == "auto":
        return get_template(named[0] if named else "world")
    chosen = get_template(template)
    for note in template_notes(chosen, states):
        warnings.warn(note, UserWarning, stacklevel=3)
    return chosen


def template_notes(form: Template, states: Sequence[State | None]) -> list[str]:
    """Return a line for each state whose card names another template than the one asked in."""
    return [
        f"state {show(state.card.name)} was tuned for the template {show(state.card.template)}, "
        f'the question is asked in {show(form.name)}; pass template="auto"'
        for state in states
        if state is not None and state.card.template not in ("", form.name)
    ]


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
        on_text = options.pop("on_text", None)
        emit = (lambda _, piece: on_text(piece)) if callable(on_text) else on_text
        return ask_together([self], question, on_text=emit, **options)[0]

    def switch(self, state: State | None, *, cancel: threading.Event | None = None) -> State:
        """Read the whole conversation again, token by token, from another initial state; returns where that leads.

        Nothing changes if this fails, is interrupted, or raises Cancelled because another thread has set `cancel`.
        """
        start = self._fitting(state)
        choose_template(self.template, [state])
        tokens = [token for turn in self.turns for token in turn.tokens]
        if tokens:
            stop = (lambda: "cancelled" if cancel.is_set() else "") if cancel is not None else lambda: ""
            with torch.no_grad():
                read = read_prompts(self._model, [tokens], [start], stop)
            if read is None:
                raise Cancelled("switch: stopped; the conversation is as it was")
            start = row_state(self._model, read[1], 0, start, len(tokens))
        self.state = start
        return self.state

    def _prompt(self, question: str) -> str:
        """Return the text that the model reads next; the separator is completed in front."""
        form = self.template
        gap = form.separator[overlap(self._last(), form.separator) :] if self.turns else ""
        return replace(form, prompt=gap + form.prompt).format(question)

    def _keep(self, question: str, prompt: str, out: Generation) -> Generation:
        """Add a turn, as `ask` says; returns the generation with the state that the next turn begins from."""
        if out.finish in ("cancelled", "interrupted") and not out.tokens:
            return out
        model, separator = self._model, self.template.separator
        read = model.encode(prompt)
        rest = model.tokenizer.decode(out.tokens)[len(kept := kept_text(model, out)) :]
        if out.finish == "stop" and not separator.startswith(rest):
            tokens = read + model.encode(kept + separator)
            out = replace(out, state=model.read(tokens, self.state))
        else:
            tokens = read + list(out.tokens)
        self.turns, self.state = (*self.turns, Turn(question, out.text, tuple(tokens))), out.state
        return out

    def _fitting(self, state: State | None) -> State:
        if state is None:
            return self._model.zero()
        if not isinstance(state, State):
            raise ArgError(f"state: need a State or None, got {show(type(state).__name__)}")
        check_fits(state, self._model)
        return state

    def _last(self) -> str:
        return self._model.tokenizer.decode(self.turns[-1].tokens)


def ask_together(
    talks: Sequence[Conversation],
    question: str,
    *,
    on_text: Callable[[int, str], object] | None = None,
    cancel: threading.Event | None = None,
    **options: Any,
) -> list[Generation]:
    """Ask several conversations the same next question in one batch, as `Conversation.ask` does each alone.

    They must have one model and one template, else ArgError; the first one's sampling is every one's, under options.
    on_text receives (index of the conversation, piece). A failure while they answer changes none of them.
    """
    first = talks[0]
    if any(talk._model is not first._model or talk.template != first.template for talk in talks):
        raise ArgError("talks: need conversations with one model and one template; ask the others apart")
    prompts = [talk._prompt(question) for talk in talks]
    out = answer_prompts(
        first._model, prompts, [talk.state for talk in talks], first.template, on_text=on_text, cancel=cancel,
        **(first.sampling | options),
    )  # fmt: skip
    return [talk._keep(question, *one) for talk, one in zip(talks, zip(prompts, out, strict=True), strict=True)]
