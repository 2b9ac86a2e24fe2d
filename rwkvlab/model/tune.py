"""Tuning: the initial state is trained on examples, by Adam, while the model stays as it is."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.errors import DivergedError, PromptError, TuneError, show
from rwkvlab.model.interrupt import held_interrupt, stop_reason
from rwkvlab.shapes import check_range
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

END_OF_TEXT = 0
Pair = tuple[list[int], list[int]]  # the ids of a prompt, and of its answer with the end of text
NAMES = ("wkv", "att_shift", "ffn_shift")


@dataclass(frozen=True)
class TuneStep:
    """What is known after a step (from 1): the loss of its batch in nats a token, the state's norm, the rate used."""

    step: int
    steps: int
    loss: float
    norm: float
    lr: float


def tune(
    model: Model,
    examples: Iterable[tuple[str, str]],
    *,
    steps: int = 200,
    lr: float = 0.04,
    batch: int | None = None,
    seed: int = 0,
    shifts: bool = False,
    template: str = "",
    init: State | None = None,
    on_step: Callable[[TuneStep], object] | None = None,
    cancel: threading.Event | None = None,
) -> State:
    """Train the initial state of a frozen model until it answers as the examples do.

    examples are (prompt, answer) pairs as the model reads and writes them; `Task.examples()` formats them by a chat
    template, whose name may be given as `template` for the card. The loss is the cross-entropy of the answer and of
    the end of text (id 0) after it. Adam, the rate falling from lr to 0 along a cosine; batch is the number of
    examples a step (None: 16, or all if there are fewer), drawn without replacement by `seed`. init is where to start
    (None: zeros); the token shifts are trained too where `shifts`.

    Ctrl-C, or `cancel` set by another thread, ends it after the step in hand: the state so far is returned, and its
    card's recipe tells. Raises TuneError for examples that cannot be used, ArgError for a setting out of its range,
    MismatchError for an init that does not fit, DivergedError where the loss or a gradient is not finite.
    """
    pairs = _encode(model, examples)
    size = min(16, len(pairs)) if batch is None else batch
    check_range("steps", steps, 1, 10**7, whole=True)
    check_range("lr", lr, 1e-9, 1e3)
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    check_range("batch", size, 1, len(pairs), whole=True)
    start = model.zero() if init is None else init
    check_fits(start, model)
    params = [getattr(start, name).detach().to(model.device, copy=True) for name in NAMES]
    trained = [param.requires_grad_() for param in params[: 3 if shifts else 1]]
    optimizer = torch.optim.Adam(trained, lr=lr)
    batches, done = _batches(pairs, size, seed), 0
    with held_interrupt() as interrupted:
        while done < steps and not stop_reason(cancel, interrupted):
            rate = lr * 0.5 * (1 + math.cos(math.pi * done / steps))
            optimizer.param_groups[0]["lr"] = rate
            loss = _gradients(model, params, next(batches))
            if not all(math.isfinite(x) for x in (loss, *(float(param.grad.sum()) for param in trained))):
                raise DivergedError(
                    f"tune: the loss ({loss:.4g}) or its gradient is not finite at step {done + 1} of {steps}, "
                    f"lr {rate:.3g}; start again with a smaller lr"
                )
            optimizer.step()
            done += 1
            if on_step is not None:
                norm = math.hypot(*(float(param.detach().norm()) for param in trained))
                on_step(TuneStep(done, steps, loss, norm, rate))
    count = f"{steps} steps" if done == steps else f"{done} of {steps} steps"
    origin = "" if init is None else f", from {init.card.name or init.card.recipe or 'a state'}"
    recipe = f"tuned: {count}, lr {lr:g}, batch {size}, {len(pairs)} examples, seed {seed}{origin}"
    card = StateCard(arch=model.dims.arch, base=model.card.fingerprint, template=template, recipe=recipe)
    wkv, att_shift, ffn_shift = (param.detach().cpu() for param in params)
    return State(wkv, att_shift=att_shift, ffn_shift=ffn_shift, card=card)


def _encode(model: Model, examples: Iterable[tuple[str, str]]) -> list[Pair]:
    pairs = []
    if isinstance(examples, str) or not isinstance(examples, Iterable):
        raise TuneError(f"examples: need a list of (prompt, answer) pairs, got {show(examples)}")
    for number, example in enumerate(examples):
        if not isinstance(example, Sequence) or isinstance(example, str) or len(example) != 2:
            raise TuneError(f"examples[{number}]: need a (prompt, answer) pair, got {show(example)}")
        try:
            prompt, answer = (model.encode(text) for text in example)
        except PromptError as error:
            raise TuneError(f"examples[{number}]: {error}") from error
        if not prompt or not answer:
            raise TuneError(f"examples[{number}]: prompt and answer need at least one token each, got {show(example)}")
        pairs.append((prompt, [*answer, END_OF_TEXT]))
    if not pairs:
        raise TuneError("examples: empty; give at least one (prompt, answer) pair")
    return pairs


def _batches(pairs: list[Pair], size: int, seed: int) -> Iterator[list[Pair]]:
    """Yield batches for ever: every example once in each round, a new order in every round."""
    rng = random.Random(seed)
    queue: list[Pair] = []
    while True:
        while len(queue) < size:
            queue += rng.sample(pairs, len(pairs))
        yield queue[:size]
        queue = queue[size:]


def _gradients(model: Model, params: list[Tensor], rows: list[Pair]) -> float:
    """Put the gradients of the loss of one batch into `params`; returns the loss in nats a token."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    wanted = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        wanted[row, len(prompt) : end] = True
    with torch.enable_grad():
        state = State(params[0], like=model, att_shift=params[1], ffn_shift=params[2])
        logits = model.run(tokens[:, :-1], model.begin([state] * len(rows)), "all")
        assert logits is not None
        at = wanted[:, 1:]
        loss = F.cross_entropy(logits[at.to(logits.device)], tokens[:, 1:][at].to(logits.device))
        for param in params:
            param.grad = None
        loss.backward()
    return float(loss.detach())
