"""Tuning: the initial state is trained on examples, by Adam, while the model stays as it is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.errors import ArgError, DivergedError
from rwkvlab.model.examples import Encoded, batches, parted
from rwkvlab.model.interrupt import held_interrupt, stop_reason
from rwkvlab.shapes import check_range
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

NAMES = ("wkv", "att_shift", "ffn_shift")
# How often the held-out loss is measured in a run where `check` does not say.
CHECKS = 20


@dataclass(frozen=True)
class TuneStep:
    """What is known after a step (from 1).

    loss: of its batch, in nats a counted token. norm: that of what is trained. held_out: the loss of the held-out
    examples where it was measured after this step, else None; best: the lowest so far. tokens_per_second counts what
    was read since the run began, seconds_left what the steps still to come would take.
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


def tune(
    model: Model,
    examples: Iterable[Any],
    *,
    steps: int = 200,
    lr: float = 0.04,
    batch: int | None = None,
    seed: int = 0,
    shifts: bool = False,
    template: str | Template = "",
    init: State | None = None,
    held_out: Iterable[Any] | float | None = None,
    check: int | None = None,
    patience: int | None = None,
    on_step: Callable[[TuneStep], object] | None = None,
    cancel: threading.Event | None = None,
) -> State:
    """Train the initial state of a frozen model until it answers as the examples do.

    examples: (prompt, answer) pairs as the model reads and writes them (`Task.examples()` formats them by a chat
    template), texts, or mappings as JSONL holds them (`lab.read_examples`): {"prompt", "answer"}, {"text"}, or
    {"messages"} of user and assistant, written in `template`, whose name the card keeps. The loss is the cross-entropy
    of the answers (of a text: of all but its first token) and of the end of text (id 0) after them. Adam, the rate
    falling from lr to 0 along a cosine; batch is the number of examples a step (None: 16, or all if there are fewer),
    drawn without replacement by `seed`. init is where to start (None: zeros); the token shifts are trained too where
    `shifts`.

    held_out: examples that are not trained on, or the share of `examples` to set apart by `seed`. Their loss is
    measured before the first step, after every `check` steps (None: a twentieth of all) and after the last one; the
    state with the lowest is returned, and after `patience` measurements without a lower one the run ends.

    Ctrl-C, or `cancel` set by another thread, ends it after the step in hand: the best state so far (without held_out,
    the last) is returned, and its card's recipe tells. Raises TuneError for examples that cannot be used, ArgError for
    a setting out of its range, MismatchError for an init that does not fit, DivergedError where the loss or a gradient
    is not finite, with that state as its `state`.
    """
    found, apart = parted(model, examples, held_out, template, seed)
    check_range("steps", steps, 1, 10**7, whole=True)
    check_range("lr", lr, 1e-9, 1e3)
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    size = min(16, len(found)) if batch is None else batch
    check_range("batch", size, 1, len(found), whole=True)
    every = _checking(check, patience, steps, bool(apart))
    run = _Run(model, init, shifts, lr, apart, size)
    queue = batches(found, size, seed)
    with held_interrupt() as interrupted:
        run.measure()
        while run.done < steps and not stop_reason(cancel, interrupted) and not run.tired(patience):
            rate = lr * 0.5 * (1 + math.cos(math.pi * run.done / steps))
            loss = run.step(next(queue), rate, steps)
            measured = run.measure() if run.done % every == 0 or run.done == steps else None
            if on_step is not None:
                on_step(run.report(steps, loss, rate, measured))
    origin = "" if init is None else f", from {init.card.name or init.card.recipe or 'a state'}"
    count = f"{steps} steps" if run.done == steps else f"{run.done} of {steps} steps"
    ending = f", {len(apart)} held out: loss {run.lowest:.4g} after {run.at} steps" if apart else ""
    settings = f"lr {lr:g}, batch {size}, {len(found)} examples, seed {seed}"
    name = template.name if isinstance(template, Template) else template
    return run.state(name, f"tuned: {count}, {settings}{origin}{ending}")


def _checking(check: int | None, patience: int | None, steps: int, apart: bool) -> int:
    """After how many steps the held-out loss is measured each time."""
    for name, value in (("check", check), ("patience", patience)):
        if value is not None:
            check_range(name, value, 1, 10**7, whole=True)
            if not apart:
                raise ArgError(f"{name}: needs held_out: examples that are not trained on")
    return max(1, steps // CHECKS) if check is None else check


class _Run:
    """A state in training: what is trained, how far it is, and the best of it so far."""

    def __init__(
        self, model: Model, init: State | None, shifts: bool, lr: float, apart: list[Encoded], size: int
    ) -> None:
        start = model.zero() if init is None else init
        check_fits(start, model)
        self.model, self.apart, self.size = model, apart, size
        self.params = [getattr(start, name).detach().to(model.device, copy=True) for name in NAMES]
        self.trained = [param.requires_grad_() for param in self.params[: 3 if shifts else 1]]
        self.optimizer = torch.optim.Adam(self.trained, lr=lr)
        self.done = self.at = self.worse = self.read = 0
        self.started = time.perf_counter()
        self.lowest = math.inf
        self.kept = self.params

    def step(self, rows: list[Encoded], rate: float, steps: int) -> float:
        """One step at a rate; returns the loss of its batch."""
        self.optimizer.param_groups[0]["lr"] = rate
        with torch.enable_grad():
            total, count = _loss(self.model, self.params, rows)
            loss = total / count
            self.optimizer.zero_grad()
            loss.backward()
        value = float(loss.detach())
        if not all(math.isfinite(x) for x in (value, *(float(param.grad.sum()) for param in self.trained))):
            error = DivergedError(
                f"tune: the loss ({value:.4g}) or its gradient is not finite at step {self.done + 1} of {steps}, "
                f"lr {rate:.3g}; start again with a smaller lr (the state before it is the error's .state)"
            )
            error.state = self.state("", f"tuned: {self.done} of {steps} steps, before the loss was not finite")
            raise error
        self.optimizer.step()
        self.done += 1
        self.read += sum(len(row.ids) - 1 for row in rows)
        return value

    def report(self, steps: int, loss: float, rate: float, measured: float | None) -> TuneStep:
        """What is known after the step in hand."""
        took = time.perf_counter() - self.started
        best, left = self.lowest if self.apart else None, took / self.done * (steps - self.done)
        return TuneStep(self.done, steps, loss, self.norm(), rate, measured, best, self.read / took, left)

    def measure(self) -> float | None:
        """The loss of the held-out examples, if there are any; the state is kept where it is the lowest so far."""
        if not self.apart:
            return None
        total, count = 0.0, 0
        with torch.no_grad():
            for at in range(0, len(self.apart), self.size):
                part, wanted = _loss(self.model, self.params, self.apart[at : at + self.size])
                total, count = total + float(part), count + wanted
        loss = total / count
        self.worse += 1
        if loss < self.lowest:
            self.lowest, self.at, self.worse = loss, self.done, 0
            self.kept = [param.detach().clone() for param in self.params]
        return loss

    def tired(self, patience: int | None) -> bool:
        """Whether that many measurements in a row have found nothing lower."""
        return patience is not None and self.worse >= patience

    def norm(self) -> float:
        """That of all that is trained."""
        return math.hypot(*(float(param.detach().norm()) for param in self.trained))

    def state(self, template: str, recipe: str) -> State:
        """The best state so far; without held-out examples, the last."""
        card = StateCard(arch=self.model.dims.arch, base=self.model.card.fingerprint, template=template, recipe=recipe)
        wkv, att_shift, ffn_shift = (param.detach().cpu() for param in self.kept)
        return State(wkv, att_shift=att_shift, ffn_shift=ffn_shift, card=card)


def _loss(model: Model, params: list[Tensor], rows: list[Encoded]) -> tuple[Tensor, int]:
    """The sum of the losses of all counted tokens of a batch in nats, and how many they are."""
    longest = max(len(row.ids) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    wanted = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row.ids)] = torch.tensor(row.ids)
        wanted[number, : len(row.ids)] = torch.tensor(row.wanted)
    state = State(params[0], like=model, att_shift=params[1], ffn_shift=params[2])
    at = wanted[:, 1:]
    logits = model.run(tokens[:, :-1], model.begin([state] * len(rows)), at)
    assert logits is not None
    return F.cross_entropy(logits, tokens[:, 1:][at].to(logits.device), reduction="sum"), int(at.sum())
