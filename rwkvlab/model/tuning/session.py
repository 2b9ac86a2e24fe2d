"""A run of tuning from its door to its state: settings checked, examples encoded, steps, reports and checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from rwkvlab.errors import ArgError, DivergedError, show
from rwkvlab.model.examples import Write, batches, parted
from rwkvlab.model.interrupt import held_interrupt, stop_reason
from rwkvlab.model.parts import Way
from rwkvlab.model.tuning.graphed import GraphedPass
from rwkvlab.model.tuning.loss import Objective
from rwkvlab.model.tuning.memory import check_memory, recomputes
from rwkvlab.model.tuning.norms import TOO_FAR, NormGuard
from rwkvlab.model.tuning.options import Options
from rwkvlab.model.tuning.plan import batch_memory
from rwkvlab.model.tuning.ranks import Ranks
from rwkvlab.model.tuning.run import Run
from rwkvlab.model.tuning.saving import Saving, identity, place
from rwkvlab.model.tuning.step import TuneStep
from rwkvlab.model.tuning.teacher import teacher_state, write_answers
from rwkvlab.states.fits import check_fits, check_model
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


class Session:
    """One call of `tune`: all that can be wrong with it is said when it is made; `go` trains and returns the state."""

    def __init__(
        self,
        model: Model,
        examples: Iterable[Any],
        init: State | None,
        held_out: Any,
        options: Options,
        cancel: threading.Event | None = None,
    ) -> None:
        _check(model, cancel)
        self.model, self.options, self.init, self.cancel = model, options, init, cancel
        self.teacher, self.taught = teacher_state(model, options.teacher)
        self.rows, self.apart = parted(model, examples, held_out, options.template, options.seed, self._writer())
        self.size, self.check = options.checked(len(self.rows), bool(self.apart))
        start = model.zero() if init is None else init
        check_fits(start, model)
        self.again = recomputes(model, options.checkpointing)
        way = Way(backend=model._backend, recompute=True) if self.again else None
        self.passes = GraphedPass(model, way)
        objective = Objective(model, self.teacher, float(options.teacher_weight), self.passes)
        self.ranks = Ranks(model.device)
        self.memory = self._memory()
        self.run = Run(objective, start, options.shifts, options.lr, self.apart, self.size, self.ranks)
        self.saving = self._saving()
        self.guard: NormGuard | None = None
        self.warned = False

    def go(self, on_step: Callable[[TuneStep], object] | None = None, cancel: threading.Event | None = None) -> State:
        """Train; returns the best state. What `tune` says of Ctrl-C, `cancel` and errors holds."""
        options, run = self.options, self.run
        with closing(self.passes), self._kept_by_errors(), held_interrupt() as interrupted:

            def stop() -> bool:
                return self.ranks.any(bool(stop_reason(cancel, interrupted)))

            self._resume()
            self.guard = NormGuard(self.model, self.rows)
            if self._due() and run.measured != run.done:
                run.measure(stop)
            queue = batches(self.rows, self.size, options.seed, run.done)
            self.ranks.lead(self._save)
            while run.done < options.steps and not stop() and not run.tired(options.patience):
                rate = options.lr * 0.5 * (1 + math.cos(math.pi * run.done / options.steps))
                loss = run.step(next(queue), rate, options.steps)
                measured = run.measure(stop) if self._due() else None
                step = self._report(loss, rate, measured)
                self.ranks.lead(lambda step=step: self._tell(step, on_step))  # type: ignore[misc]
            self.ranks.lead(self._save)
        if interrupted.is_set() and run.done < options.steps:
            text = f"tune: interrupted after step {run.done} of {options.steps}"
            warnings.warn(f"{text}; the state so far is returned, its recipe tells", stacklevel=3)
        return run.state(options.form, self._recipe())

    @contextmanager
    def _kept_by_errors(self) -> Iterator[None]:
        """Give an error that ends the run the best state so far as its `state`: no work is lost."""
        try:
            yield
        except Exception as error:
            if self.guard is not None and (self.run.done or isinstance(error, DivergedError)):
                with suppress(RuntimeError, TypeError):  # of a GPU that is gone, an error that takes nothing
                    vars(error)["state"] = self.run.state(self.options.form, self._recipe())
            raise

    def best(self) -> State | None:
        """The best state so far, for any thread; None before the first step."""
        if self.guard is None or not self.run.done:
            return None
        with self.run.lock:
            return self.run.state(self.options.form, self._recipe())

    def _due(self) -> bool:
        """Whether the held-out loss is measured at this step."""
        return self.run.done % self.check == 0 or self.run.done == self.options.steps

    def _report(self, loss: float, rate: float, measured: float | None) -> TuneStep:
        run, steps = self.run, self.options.steps
        assert self.guard is not None
        checks = -(-steps // self.check) - run.done // self.check if run.apart and run.done < steps else 0
        tokens, left = run.pace.told(steps - run.done, checks)
        best = run.lowest if run.apart else None
        multiple = self.guard.multiple(run.params[0])
        return TuneStep(run.done, steps, loss, run.norm(), rate, measured, best, tokens, left, multiple)

    def _tell(self, step: TuneStep, on_step: Callable[[TuneStep], object] | None) -> None:
        """What the first process does after a step: keep it, warn, report."""
        if self.saving is not None and self.saving.due(step.step):
            self._save()
        assert self.guard is not None
        if not self.warned and step.multiple > TOO_FAR and (found := self.guard.finding(self.run.params[0])):
            self.warned = True
            text = f"tune: {found} at step {step.step}; if answers suffer take a smaller lr, or fewer steps"
            warnings.warn(text, stacklevel=6)
        if on_step is not None:
            on_step(step)

    def _writer(self) -> Write | None:
        """What answers examples that are prompts alone: the teacher."""
        teacher = self.teacher
        if teacher is None:
            return None
        return lambda prompts: write_answers(self.model, teacher, prompts, self.options.template, self.cancel)

    def _memory(self) -> int:
        """About how many bytes the run needs beside the weights; what does not fit is refused."""
        rows = -(-self.size // self.ranks.world)
        found, what = batch_memory(self.model, self.rows, self.apart, rows, self.teacher is not None, self.again)
        check_memory(self.model, found, what)
        return found

    def _saving(self) -> Saving | None:
        """The checkpoint file, where one is wanted; all processes are made sure to be given the same."""
        options = self.options
        states = {"init": self.init, "teacher": self.teacher}
        what = identity(
            self.model, self.rows, self.apart, states, teacher_weight=float(options.teacher_weight),
            steps=options.steps, lr=float(options.lr), batch=self.size, seed=options.seed, shifts=bool(options.shifts),
            template=options.form, check=self.check, patience=options.patience,
        )  # fmt: skip
        self.ranks.check_same(hashlib.sha256(json.dumps(what).encode()).hexdigest())
        if options.checkpoint is None:
            return None
        what |= {"weights": self.model.digests[0]}
        return Saving(options.checkpoint, what, place(self.model, self.ranks.world, self.again), options.every)

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.saving is None:
            return
        wanted, found = self.run.tensors(), {}

        def load() -> None:
            assert self.saving is not None
            found.update(self.saving.load(wanted, self.options.steps) or {})

        self.ranks.lead(load)
        if self.ranks.any(bool(found)):
            tensors = found or {key: tensor.clone() for key, tensor in wanted.items()}
            self.ranks.spread(list(tensors.values()))
            self.run.restore(tensors)

    def _save(self) -> None:
        if self.saving is not None:
            self.saving.write(self.run.tensors())

    def _recipe(self) -> str:
        """How the state came about, for its card."""
        options, run, init = self.options, self.run, self.init
        origin = "" if init is None else f", from {init.card.name or init.card.recipe or 'a state'}"
        count = f"{options.steps} steps" if run.done == options.steps else f"{run.done} of {options.steps} steps"
        best = f"loss {run.lowest:.4g} after {run.at} steps" if run.judged else "not measured yet"
        ending = f", {len(self.apart)} held out: {best}" if self.apart else ""
        settings = f"lr {options.lr:g}, batch {self.size}, {len(self.rows)} examples, seed {options.seed}"
        if self.taught:
            weight = "" if options.teacher_weight == 1 else f", weight {options.teacher_weight:g}"
            origin = f"{origin}, {self.taught}{weight}"
        assert self.guard is not None
        far = self.guard.finding(run.best[0])
        return f"tuned: {count}, {settings}{origin}{ending}" + (f", {far}" if far else "")


def _check(model: object, cancel: object) -> None:
    """Raise ArgError for what is no model and no event, and where PyTorch keeps no gradients."""
    check_model("model", model)
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise ArgError(f"cancel: need a threading.Event, got {show(type(cancel).__name__)}")
    if torch.is_inference_mode_enabled():
        raise ArgError("tune: inside torch.inference_mode() nothing can be trained; call it outside")
