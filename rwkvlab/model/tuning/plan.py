"""tuning_plan: what a run of tuning would read and how much memory it would need, told before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rwkvlab.model.examples import Encoded, parted
from rwkvlab.model.memory import free_memory
from rwkvlab.model.tuning.memory import recomputes, tuning_memory
from rwkvlab.model.tuning.options import Options
from rwkvlab.model.tuning.teacher import LONGEST
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


@dataclass(frozen=True)
class TuningPlan:
    """What a run would read: examples trained on and held out, tokens of all of them, tokens of the longest.

    batch: rows of a batch. memory: bytes that are needed beside the weights, about; free: bytes that there are (None:
    not known). unanswered: prompts that a teacher is to answer first, counted with the longest answers that it gives.
    """

    trained: int
    held_out: int
    tokens: int
    longest: int
    batch: int
    memory: int
    free: int | None
    unanswered: int = 0

    def __str__(self) -> str:
        apart = f", {self.held_out:,} held out" if self.held_out else ", none held out"
        told = f", {self.unanswered:,} of them answered by the teacher first" if self.unanswered else ""
        most = "at most " if self.unanswered else ""
        size = f"{most}{self.tokens:,} tokens, the longest {most}{self.longest:,}"
        free = "" if self.free is None else f", {_size(self.free)} free"
        need = f"batches of {self.batch:,} need about {_size(self.memory)} beside the weights{free}"
        many = "1 example" if self.trained == 1 else f"{self.trained:,} examples"
        return f"{many} to train on{apart}{told}; {size}; {need}"


def tuning_plan(
    model: Model,
    examples: Iterable[Any],
    *,
    batch: int | None = None,
    seed: int = 0,
    template: str | Template = "",
    held_out: Iterable[Any] | float | None = None,
    teacher: bool = False,
    checkpointing: bool | None = None,
) -> TuningPlan:
    """Return what `tune` with these settings would read and need; nothing is trained, and no teacher is asked.

    teacher: whether there is one. Raises what `tune` raises for such examples and settings, but for the memory.
    """
    asked: list[list[int]] = []

    def write(prompts: list[list[int]]) -> list[tuple[list[int], bool]]:
        asked.extend(prompts)
        return [([0] * LONGEST, True) for _ in prompts]

    rows, apart = parted(model, examples, held_out, template, seed, write if teacher else None)
    options = Options(1, 1.0, batch, seed, False, template, None, None, None, None, None, 1.0, checkpointing)
    size, _ = options.checked(len(rows), bool(apart))
    memory, _ = batch_memory(model, rows, apart, size, teacher, recomputes(model, checkpointing))
    lengths = [len(row.ids) for row in (*rows, *apart)]
    free = free_memory(model.device)
    return TuningPlan(len(rows), len(apart), sum(lengths), max(lengths), size, memory, free, len(asked))


def batch_memory(
    model: Model, examples: Sequence[Encoded], apart: Sequence[Encoded], rows: int, teacher: bool,
    checkpointing: bool | None,
) -> tuple[int, str]:  # fmt: skip
    """Return what batches of so many rows of these examples need, as `tuning_memory` has it, and what that is for.

    apart: the held-out ones, read as many at a time.
    """
    longest = max(len(row.ids) for row in examples) - 1
    counted = min(rows * longest, rows * max(sum(row.wanted) for row in examples))
    held = max((len(row.ids) - 1 for row in apart), default=0)
    found = tuning_memory(
        model, rows, longest, counted=counted, teacher=teacher, checkpointing=checkpointing,
        held_out=min(rows, len(apart)) * held,
    )  # fmt: skip
    beside = f", {held} of those held out" if held > longest else ""
    return found, f"a batch of {rows} rows of up to {longest} tokens{beside}"


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
