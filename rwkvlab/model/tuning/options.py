"""The settings of a run of tuning, and their ranges."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rwkvlab.errors import ArgError
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

# How often the held-out loss is measured in a run where `check` does not say.
CHECKS = 20


@dataclass(frozen=True)
class Options:
    """The settings of `tune`, which describes them."""

    steps: int
    lr: float
    batch: int | None
    seed: int
    shifts: bool
    template: str | Template
    check: int | None
    patience: int | None
    checkpoint: str | os.PathLike[str] | None
    every: int | None
    teacher: str | State | None
    teacher_weight: float
    checkpointing: bool | None

    @property
    def form(self) -> str:
        """The name of the template."""
        return self.template.name if isinstance(self.template, Template) else self.template

    def checked(self, rows: int, apart: bool) -> tuple[int, int]:
        """Return the rows of a batch and the steps between two measurements; ArgError for what is out of range.

        rows: how many examples there are; apart: whether some are held out.
        """
        check_range("steps", self.steps, 1, 10**7, whole=True)
        check_range("lr", self.lr, 1e-9, 1e3)
        check_range("seed", self.seed, 0, 2**63 - 1, whole=True)
        size = min(16, rows) if self.batch is None else self.batch
        check_range("batch", size, 1, rows, whole=True)
        check_range("teacher_weight", self.teacher_weight, 1e-6, 1)
        if self.teacher is None and self.teacher_weight != 1:
            raise ArgError("teacher_weight: needs teacher: a prompt or a State")
        needs = [("check", self.check, apart, "held_out: examples that are not trained on")]
        needs += [("patience", self.patience, apart, "held_out: examples that are not trained on")]
        needs += [("every", self.every, self.checkpoint is not None, "checkpoint: the file that is kept")]
        for name, value, there, what in needs:
            if value is not None:
                check_range(name, value, 1, 10**7, whole=True)
                if not there:
                    raise ArgError(f"{name}: needs {what}")
        return size, max(1, self.steps // CHECKS) if self.check is None else self.check
