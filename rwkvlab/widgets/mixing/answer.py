"""The answer of a mixed state: a prompt, and what the model says to it, word by word, greedily."""

from __future__ import annotations

import time
from collections.abc import Callable

import ipywidgets

from rwkvlab.model.engine import Model
from rwkvlab.states.state import State
from rwkvlab.widgets.base.buttons import bar, button, text_box
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.work import Report

EVERY = 0.05  # seconds between two looks at what is written


class MixerAnswer(ipywidgets.VBox):
    """A box for the prompt over the answer; `text` is the answer so far."""

    def __init__(self, model: Model, prompt: str, template: str, max_tokens: int, ask: Callable[[], object]) -> None:
        self.model, self.template, self.max_tokens = model, template, max_tokens
        self.prompt = text_box("prompt", "ask something: the answer comes when a slider is released", "prompt")
        self.prompt.continuous_update, self.prompt.value = False, prompt
        self.prompt.layout.width = "520px"
        self.ask = button("Ask", "play", "generate the answer from the state as it is", ask)
        self.answer = Caption()
        self.answer.add_class("rwkvlab-answer")
        self.answer.layout.display = "none"
        super().__init__([bar(self.prompt, self.ask), self.answer])
        self.prompt.observe(lambda _: ask(), "value")

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.answer.text

    def write(self, state: State | None, report: Report) -> str:
        """Generate the answer from `state`; returns how it went."""
        pieces: list[str] = []
        last = 0.0

        def emit(piece: str) -> None:
            nonlocal last
            pieces.append(piece)
            report(len(pieces), self.max_tokens, "writing")
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                self.answer.say("".join(pieces))

        self.answer.layout.display = ""
        self.answer.say("…")
        try:
            out = self.model.chat(
                *(self.prompt.value, state), template=self.template, max_tokens=self.max_tokens, temperature=0.0,
                presence=0.0, frequency=0.0, on_text=emit, cancel=report.cancel,
            )  # fmt: skip
            pieces = [out.text]
            return f"answered: {len(out.tokens)} tokens, {out.finish}"
        finally:
            self.answer.say("".join(pieces) + (" … (stopped)" if report.cancel.is_set() else ""))
