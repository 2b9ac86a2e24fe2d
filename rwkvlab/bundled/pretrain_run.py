"""A training run of a bundled model: its steps, what is measured on the way, and the files that are written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from rwkvlab.bundled.feeding import KINDS, Feed
from rwkvlab.bundled.micro_data import Batch
from rwkvlab.bundled.training import Recipe, Trainer
from rwkvlab.errors import DivergedError
from rwkvlab.tensorfile import atomic_write, write_pth

LOGGED = 50  # steps
TIMED = (50, 150)  # the steps by which the pace is taken: while the rate does not depend on how many there are
UNPLANNED = 10**9
SPARE = 0.98  # of the time that is left is planned for
TENTHS, FIFTHS = 10, 5  # how often the held-out losses are measured, and the weights written


def rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step, from 0."""
    along = max(0, step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    fall = recipe.last + (1 - recipe.last) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
    return recipe.lr * fall * min(1.0, (step + 1) / recipe.warmup)


class Run:
    """A training run: the steps, what is measured on the way, and the files that are written."""

    def __init__(
        self,
        trainer: Trainer,
        feed: Feed,
        held_out: Mapping[str, Sequence[Batch]],
        path: Path,
        *,
        begin: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """path: where the weights go, log.json beside them. seconds: where the run is to end, counted from `begin`.

        With `seconds` the number of steps is planned from the pace of the first ones.
        """
        self.trainer, self._feed, self._held_out, self._path = trainer, feed, held_out, path
        self.recipe = trainer.recipe if seconds is None else replace(trainer.recipe, steps=UNPLANNED)
        self._seconds = seconds
        self._begin = perf_counter() if begin is None else begin
        self._asked, self._paced = 0.0, 0.0
        self.log: dict[str, object] = {}
        self.losses: list[dict[str, float]] = []
        self.held: list[dict[str, float]] = []

    def go(self) -> None:
        """Train to the end. Raises DivergedError at a loss or gradient that is not finite; the last good weights are
        written then."""
        self._measure(0)
        rows: list[Tensor] = []
        good, step, since, tokens = self.trainer.copies(), 0, perf_counter(), self._tokens()
        while step < self.recipe.steps:
            rows.append(self.trainer.step(self._feed.take(), rate(self.recipe, step)))
            step += 1
            if step in TIMED and self._seconds is not None:
                self._plan(step)
            if step % LOGGED == 0 or step == self.recipe.steps:
                numbers = torch.stack(rows).cpu()
                if not bool(numbers.isfinite().all()):
                    self._stopped(step, numbers, good)
                now = perf_counter()
                self._report(step, numbers, tokens * len(rows) / (now - since))
                good, rows = self.trainer.copies(), []
                self._due(step)
                since = perf_counter()
        self._write(self.trainer.weights())

    def _tokens(self) -> int:
        """Those of a step, padding counted."""
        return sum(self.recipe.rows_of(kind.name) * kind.length for kind in KINDS)

    def _plan(self, step: int) -> None:
        """At the second of two steps, set how many steps there are."""
        if step == TIMED[0]:
            self._measure(step)  # once more: the first time kernels are compiled
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        now = perf_counter()
        if step == TIMED[0]:
            self._paced = now
            return
        took = (now - self._paced) / (TIMED[1] - TIMED[0])
        left = SPARE * ((self._seconds or 0.0) - (now - self._begin) - TENTHS * self._asked)
        steps = max(step + int(left / took), self.recipe.warmup + 1)
        self.recipe = replace(self.recipe, steps=steps)
        print(f"{took * 1000:.1f} ms a step: {steps} steps", flush=True)

    def _report(self, step: int, numbers: Tensor, pace: float) -> None:
        """Keep and print the means of some steps."""
        *losses, norm = (float(x) for x in numbers.mean(0))
        row = {"step": step, **{kind.name: round(x, 5) for kind, x in zip(KINDS, losses, strict=True)}}
        row |= {"norm": round(norm, 4), "seconds": round(perf_counter() - self._begin, 1)}
        self.losses.append(row)
        said = ", ".join(f"{kind.name} {x:.4f}" for kind, x in zip(KINDS, losses, strict=True))
        print(
            f"step {step} of {self.recipe.steps}: {said}; norm {norm:.3f} (at most {float(numbers[:, -1].max()):.2f}), "
            f"{pace / 1000:.0f}k tokens/s, {row['seconds']:.0f} s",
            flush=True,
        )

    def _due(self, step: int) -> None:
        """Measure and write where a tenth or a fifth of the run has just been passed."""
        steps = self.recipe.steps
        if self._passed(step, steps / TENTHS):
            self._measure(step)
        if self._passed(step, steps / FIFTHS) and step < steps:
            self._write(self.trainer.weights())

    def _passed(self, step: int, every: float) -> bool:
        before = max(0, -(-step // LOGGED) - 1) * LOGGED
        return int(step / every + 1e-9) > int(before / every + 1e-9)

    def _measure(self, step: int) -> None:
        begin = perf_counter()
        losses = self.trainer.held_out(self._held_out)
        self._asked = perf_counter() - begin
        self.held.append({"step": step, **{kind: round(x, 5) for kind, x in losses.items()}})
        print("  held out: " + ", ".join(f"{kind} {x:.4f}" for kind, x in losses.items()), flush=True)

    def _stopped(self, step: int, numbers: Tensor, good: Sequence[Tensor]) -> None:
        first = int((~numbers.isfinite().all(1)).nonzero()[0]) + step - len(numbers) + 1
        self._write(self.trainer.weights(good))
        raise DivergedError(
            f"pretrain: a loss or a gradient is not finite at step {first}; {self._path.name} holds the weights of "
            f"step {step - len(numbers)}; start again with a smaller lr"
        )

    def _write(self, weights: Mapping[str, Tensor]) -> None:
        write_pth(self._path, weights)
        self.write_log()

    def write_log(self, **more: object) -> None:
        """Write log.json beside the weights: what is known so far, and `more`."""
        took, trainer = perf_counter() - self._begin, self.trainer
        done = int(self.losses[-1]["step"]) if self.losses else 0
        on = torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "cpu"
        kinds = {kind.name: [self.recipe.rows_of(kind.name), kind.length] for kind in KINDS}
        self.log |= {"dims": asdict(trainer.dims), "recipe": asdict(self.recipe), "rows and lengths": kinds}
        self.log |= {"steps": done, "tokens, with padding": done * self._tokens(), "seconds": round(took, 1)}
        self.log |= {"torch": torch.__version__, "device": on, "dtype": str(trainer.dtype).removeprefix("torch.")}
        self.log |= {f"mean losses of {LOGGED} steps": self.losses, "held-out losses of full weight": self.held}
        self.log |= more
        text = "{\n" + ",\n".join(f" {json.dumps(key)}: {_spread(value)}" for key, value in self.log.items()) + "\n}\n"
        atomic_write(self._path.with_name("log.json"), lambda file: file.write(text.encode()))


def _spread(value: object) -> str:
    """JSON, a list's rows one a line."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
    return json.dumps(value)
