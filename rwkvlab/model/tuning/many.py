"""tune_many: several initial states are trained side by side, rows of all of them in one batch."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.errors import ArgError, DivergedError, show
from rwkvlab.model.examples import Encoded, batches, encode_examples
from rwkvlab.model.interrupt import held_interrupt, stop_reason
from rwkvlab.model.parts import Flow
from rwkvlab.model.tuning.graphed import GraphedPass, with_room
from rwkvlab.model.tuning.loss import padded, piecewise
from rwkvlab.shapes import check_range
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

# Tokens, padding included, of the rows that are read at once: enough for a GPU, some GB of activations.
PIECE = 2**16


def tune_many(
    model: Model,
    runs: Mapping[str, Iterable[Any]],
    *,
    steps: int = 200,
    lr: float = 0.04,
    batch: int | None = None,
    seeds: int | Mapping[str, int] = 0,
    template: str | Template = "",
    on_step: Callable[[int, dict[str, float]], object] | None = None,
    cancel: threading.Event | None = None,
) -> dict[str, State]:
    """Train one initial state a name, each on its own examples, all at the same time: on a GPU forty cost little more
    than one.

    The states, by the names of `runs`, are those that `tune(model, examples, steps=, lr=, batch=, seed=, template=)`
    gives for each alone, but for rounding: each has its own loss, and Adam works number by number. seeds: one for all,
    or one a name. on_step is given the step (from 1) and the loss of every run in nats a counted token. Ctrl-C, or
    `cancel` set by another thread, ends all after the step in hand. Raises what `tune` raises, but estimates no memory;
    DivergedError names the runs that diverged and has the states before the step, by name, as its `states`.
    """
    rows = _encoded(model, runs, template)
    check_range("steps", steps, 1, 10**7, whole=True)
    check_range("lr", lr, 1e-9, 1e3)
    queues, sizes = _queues(rows, batch, seeds)
    dims, done = model.dims, 0
    wkv = torch.zeros(len(rows), dims.L, dims.H, dims.V, dims.K, device=model.device, requires_grad=True)
    optimizer, passes = torch.optim.Adam([wkv], lr=lr), GraphedPass(model)

    def states() -> dict[str, State]:
        found = {}
        for (name, examples), size, x in zip(rows.items(), sizes, wkv.detach().cpu(), strict=True):
            count = f"{steps} steps" if done == steps else f"{done} of {steps} steps"
            recipe = f"tuned: {count}, lr {lr:g}, batch {size}, {len(examples)} examples, seed {_seed(seeds, name)}"
            form = template.name if isinstance(template, Template) else template
            card = StateCard(arch=dims.arch, base=model.card.fingerprint, template=form, recipe=recipe)
            found[name] = State(x.clone(), like=model, card=card).named(name)
        return found

    with held_interrupt() as interrupted:
        while done < steps and not stop_reason(cancel, interrupted):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * done / steps))
            given = [next(queue) for queue in queues]
            losses = with_room(passes, partial(_backward, model, passes, wkv, given))
            assert wkv.grad is not None
            sums = (losses + wkv.grad.flatten(1).sum(1)).isfinite().tolist()
            if not all(sums):
                names = ", ".join(show(name)[1:-1] for name, good in zip(rows, sums, strict=True) if not good)
                error = DivergedError(
                    f"tune_many: the loss or its gradient is not finite at step {done + 1} of {steps}: {names}; start "
                    "again with a smaller lr (the states before it are the error's .states)"
                )
                error.states = states()
                raise error
            optimizer.step()
            done += 1
            if on_step is not None:
                on_step(done, dict(zip(rows, losses.tolist(), strict=True)))
    return states()


def _encoded(model: Model, runs: Mapping[str, Iterable[Any]], template: str | Template) -> dict[str, list[Encoded]]:
    if not isinstance(runs, Mapping) or not runs or not all(isinstance(name, str) for name in runs):
        raise ArgError(f'runs: need a mapping such as {{"emoji": examples}}, got {show(runs)}')
    return {name: encode_examples(model, examples, template, show(name)) for name, examples in runs.items()}


def _seed(seeds: int | Mapping[str, int], name: str) -> int:
    if isinstance(seeds, Mapping) and name not in seeds:
        raise ArgError(f"seeds: none for {show(name)}")
    return int(check_range("seed", seeds[name] if isinstance(seeds, Mapping) else seeds, 0, 2**63 - 1, whole=True))


def _queues(
    rows: Mapping[str, Sequence[Encoded]], batch: int | None, seeds: int | Mapping[str, int]
) -> tuple[list[Iterator[list[Encoded]]], list[int]]:
    """The batches of every run, and how many examples are in one."""
    queues, sizes = [], []
    for name, found in rows.items():
        size = min(16, len(found)) if batch is None else batch
        check_range("batch", size, 1, len(found), whole=True)
        queues.append(batches(found, size, _seed(seeds, name)))
        sizes.append(size)
    return queues, sizes


def _backward(model: Model, passes: GraphedPass, wkv: Tensor, parts: Sequence[Sequence[Encoded]]) -> Tensor:
    """Leave the gradient of every run's mean loss in wkv.grad; returns those losses [N].

    Rows of like length are read together, whichever run they are of.
    """
    counts = torch.tensor([sum(sum(row.wanted) for row in part) for part in parts], device=wkv.device)
    order = sorted(((row, i) for i, part in enumerate(parts) for row in part), key=lambda x: len(x[0].ids))
    losses, wkv.grad = torch.zeros(len(parts), device=wkv.device), None
    while order:
        fit = max(1, PIECE // len(order[-1][0].ids))
        piece, order = order[-fit:], order[:-fit]
        tokens, wanted = padded([row for row, _ in piece])
        at, owner = wanted[:, 1:], torch.tensor([i for _, i in piece])
        with torch.enable_grad():
            x = passes.hidden(tokens[:, :-1], _flow(model, wkv[owner.to(wkv.device)]), at)
            each = piecewise(model, _each, x, tokens[:, 1:][at].to(x.device))
            of = owner[:, None].expand_as(at)[at].to(wkv.device)  # the run that each counted token is of
            mean = torch.zeros_like(losses).index_add(0, of, each) / counts
            mean.sum().backward()
        losses += mean.detach()
    return losses


def _each(logits: Tensor, answers: Tensor) -> Tensor:
    return F.cross_entropy(logits, answers, reduction="none")


def _flow(model: Model, starts: Tensor) -> Flow:
    """Rows [B,L,H,V,K] as the running state of a batch, without token-shifts."""
    att, ffn = (
        [torch.zeros(len(starts), model.dims.C, dtype=model.dtype, device=model.device) for _ in range(model.dims.L)]
        for _ in range(2)
    )
    return Flow([x.contiguous() for x in starts.unbind(1)], att, ffn)
