"""A state in training: what is trained, how far it is, and the best of it so far."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from rwkvlab.errors import DivergedError
from rwkvlab.model.examples import Encoded
from rwkvlab.model.tuning.graphed import with_room
from rwkvlab.model.tuning.loss import Objective, counted
from rwkvlab.model.tuning.pace import Pace
from rwkvlab.model.tuning.ranks import Ranks
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State

NAMES = ("wkv", "att_shift", "ffn_shift")
# what Adam keeps of each tensor that is trained
MOMENTS = ("exp_avg", "exp_avg_sq")


class Run:
    """A state that is trained by Adam, step by step, on the shares of `ranks`.

    done: steps; measured: after how many of them the held-out loss was last measured (-1: never); lowest: the lowest,
    found after `at` steps, `worse`: measurements since. `lock` is held while any of it changes, so that another thread
    may look in between. Raises DivergedError, to which whoever runs it gives the state.
    """

    def __init__(
        self,
        objective: Objective,
        start: State,
        shifts: bool,
        lr: float,
        apart: Sequence[Encoded],
        size: int,
        ranks: Ranks,
    ) -> None:
        self.objective, self.apart, self.size, self.ranks = objective, apart, size, ranks
        self.model, self.lock = objective.model, threading.RLock()
        self.params = [getattr(start, name).detach().to(self.model.device, copy=True) for name in NAMES]
        self.trained = [param.requires_grad_() for param in self.params[: 3 if shifts else 1]]
        self.optimizer = torch.optim.Adam(self.trained, lr=lr)
        self.done = self.at = self.worse = self.first = 0
        self.measured = -1
        self.pace = Pace()
        self.lowest = math.inf
        self.kept = self.params

    def step(self, rows: Sequence[Encoded], rate: float, steps: int) -> float:
        """One step at a rate; returns the loss of its batch."""
        self.pace.step(self.done - self.first)
        self.optimizer.param_groups[0]["lr"] = rate
        count, mine = counted(rows), self.ranks.share(rows)
        loss = with_room(self.objective.passes, lambda: self._backward(mine, count))
        grads = [param.grad for param in self.trained if param.grad is not None]
        self.ranks.add([loss, *grads])
        value, *sums = torch.stack([loss, *(grad.sum() for grad in grads)]).tolist()  # the GPU is waited for once
        if not all(map(math.isfinite, (value, *sums))):
            raise DivergedError(
                f"tune: the loss ({value:.4g}) or its gradient is not finite at step {self.done + 1} of {steps}, "
                f"lr {rate:.3g}; start again with a smaller lr (the best state before it is the error's .state)"
            )
        with self.lock:
            self.optimizer.step()
            self.done += 1
        self.pace.tokens += sum(len(row.ids) - 1 for row in rows)
        return value

    def _backward(self, rows: Sequence[Encoded], count: int) -> Tensor:
        """Leave the gradient of the loss of this process's rows, a part of `count` tokens; returns that loss."""
        self.optimizer.zero_grad()
        if not rows:
            for param in self.trained:
                param.grad = torch.zeros_like(param)
            return torch.zeros((), device=self.model.device)
        with torch.enable_grad():
            loss = self.objective.total(self.params, rows) / count
            loss.backward()
        return loss.detach()

    def measure(self, stop: Callable[[], bool]) -> float | None:
        """The loss of the held-out examples, if there are any; the state is kept where it is the lowest so far.

        None, and as if it had not been begun, where `stop` tells to between two batches.
        """
        if not self.apart:
            return None
        total, count = 0.0, 0
        with self.pace.measuring(), torch.no_grad():
            for at in range(0, len(self.apart), self.size):
                if at and stop():
                    return None
                rows = self.apart[at : at + self.size]
                mine = self.ranks.share(rows)
                total += float(self.objective.total(self.params, mine)) if mine else 0.0
                count += counted(rows)
        loss = self.ranks.sum(total) / count
        if not math.isfinite(loss):
            self.measured = self.done  # so that the state is none that came out so
            raise DivergedError(
                f"tune: the held-out loss is not finite ({loss}) after {self.done} steps; look for examples there that "
                "are unlike the others, or start again with a smaller lr (the best state before is the error's .state)"
            )
        with self.lock:
            self.worse, self.measured = self.worse + 1, self.done
            if loss < self.lowest:
                self.lowest, self.at, self.worse = loss, self.done, 0
                self.kept = [param.detach().clone() for param in self.params]
        return loss

    def tired(self, patience: int | None) -> bool:
        """Whether that many measurements in a row have found nothing lower."""
        return patience is not None and self.worse >= patience

    @property
    def best(self) -> Sequence[Tensor]:
        """The parts of the best state so far."""
        return self.kept if self.judged else self.params

    @property
    def judged(self) -> bool:
        """Whether the best state is chosen by the held-out loss; else, before that was measured, it is the last."""
        return bool(self.apart) and (self.measured > 0 or self.done == 0)

    def norm(self) -> float:
        """That of all that is trained."""
        return math.hypot(*(float(param.detach().norm()) for param in self.trained))

    def state(self, template: str, recipe: str) -> State:
        """The best state so far; without held-out examples, and before their loss was measured, the last."""
        card = StateCard(arch=self.model.dims.arch, base=self.model.card.fingerprint, template=template, recipe=recipe)
        with self.lock:
            wkv, att_shift, ffn_shift = (param.detach().to("cpu", copy=True) for param in self.best)
        return State(wkv, att_shift=att_shift, ffn_shift=ffn_shift, card=card)

    def tensors(self) -> dict[str, Tensor]:
        """All that a run needs to go on from here, by name; always the same names and shapes."""
        found = {}
        for name, param, kept in zip(NAMES, self.trained, self.kept, strict=False):
            known = self.optimizer.state.get(param, {})
            found[f"{name}.now"] = param.detach()
            found |= {f"{name}.{key}": known.get(key, torch.zeros_like(param)) for key in MOMENTS}
            if self.apart:
                found[f"{name}.best"] = kept.detach()
        numbers = [self.done, self.measured, self.at, self.worse, self.lowest]
        return found | {"progress": torch.tensor(numbers, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave, of a run with the same settings."""
        *whole, self.lowest = tensors["progress"].tolist()
        self.done, self.measured, self.at, self.worse = map(int, whole)
        self.first = self.done
        kept = list(self.params)
        for number, (name, param) in enumerate(zip(NAMES, self.trained, strict=False)):
            param.detach().copy_(tensors[f"{name}.now"])
            if self.done:
                moments = {key: tensors[f"{name}.{key}"].to(param.device, copy=True) for key in MOMENTS}
                self.optimizer.state[param] = {"step": torch.tensor(float(self.done)), **moments}
            if self.apart and math.isfinite(self.lowest):
                kept[number] = tensors[f"{name}.best"].to(param.device, copy=True)
        self.kept = kept if self.apart and math.isfinite(self.lowest) else self.params
