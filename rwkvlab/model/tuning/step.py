"""TuneStep: what is known after a step of tuning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TuneStep:
    """What is known after a step (from 1).

    loss: of its batch, in nats a counted token. norm: that of what is trained. held_out: the loss of the held-out
    examples where it was measured after this step, else None; best: the lowest so far. tokens_per_second: of what is
    trained on, since the run was begun or taken up again, its first step apart; seconds_left: what the steps and the
    measurements still to come would take. multiple: the norm of a head over its norm in normal running (the model
    reading examples from zeros), of the head where this is largest.
    """

    step: int
    steps: int
    loss: float
    norm: float
    lr: float
    held_out: float | None = None
    best: float | None = None
    tokens_per_second: float = 0.0
    seconds_left: float = 0.0
    multiple: float = 0.0

    def __str__(self) -> str:
        held = "" if self.held_out is None else f", held out {self.held_out:.4f} (best {self.best:.4f})"
        pace = f"{self.tokens_per_second:,.0f} tokens/s, {self.seconds_left:.0f} s left"
        size = f"norm {self.norm:.2f} ({self.multiple:.1f} times normal)"
        return f"step {self.step} of {self.steps}: loss {self.loss:.4f}{held}, {size}, {pace}"
