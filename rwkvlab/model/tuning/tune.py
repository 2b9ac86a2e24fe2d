"""tune: the initial state is trained on examples, by Adam, while the model stays as it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from rwkvlab.model.tuning.options import Options
from rwkvlab.model.tuning.session import Session
from rwkvlab.model.tuning.step import TuneStep
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def tune(
    model: Model, examples: Iterable[Any], *,
    steps: int = 200, lr: float = 0.04, batch: int | None = None, seed: int = 0, shifts: bool = False,
    template: str | Template = "", init: State | None = None,
    held_out: Iterable[Any] | float | None = None, check: int | None = None, patience: int | None = None,
    teacher: str | State | None = None, teacher_weight: float = 1.0,
    checkpoint: str | os.PathLike[str] | None = None, every: int | None = None, checkpointing: bool | None = None,
    on_step: Callable[[TuneStep], object] | None = None, cancel: threading.Event | None = None,
) -> State:  # fmt: skip
    """Train the initial state of a frozen model until it answers as the examples do.

    examples: (prompt, answer) pairs as the model reads and writes them (`Task.examples()` formats them by a chat
    template), texts, or mappings as JSONL holds them (`lab.read_examples`): {"prompt", "answer"}, {"text"}, or
    {"messages"} of user and assistant or, in short, {"question", "answer"}, written in `template` ("": world; the card
    keeps the name that is given). The loss is the cross-entropy of the answers (of a text: of all but its first token)
    and of the end of text (id 0) after them. Adam, the rate
    falling from lr to 0 along a cosine; batch is the number of examples a step (None: 16, or all if there are fewer),
    drawn without replacement by `seed`. init is where to start (None: zeros); the token shifts are trained too where
    `shifts`.

    The defaults were measured on the bundled micro model (tests/benchmarks/tuning.py): after 200 steps lr 0.01 answers
    0.93 of held-out questions rightly, 0.04 0.98, and 0.16 to 1 0.99, with heads up to 3.2 times their normal norm in
    place of 0.5. A constant or linear rate, warm-up, RMSprop, AdamW, SGD (at lr 3) and a start from noise come within
    0.02 of each other. A gain on the state, as some trainers have it, would be lr times that gain under Adam.

    held_out: examples that are not trained on, or the share of `examples` to set apart by `seed`. Their loss is
    measured before the first step, after every `check` steps (None: a twentieth of all) and after the last one; the
    state with the lowest is returned, and after `patience` measurements without a lower one the run ends. A run that is
    stopped before its first `check` returns the last state.

    teacher: a prompt that the same model, frozen, reads before each example, or a State that it reads them from; the
    loss is then KL(teacher || student) of what counts, or `teacher_weight` of it and the rest the cross-entropy. Of
    examples {"prompt"} alone the teacher writes the answers, greedily. (With shifts=True, init=model.read(teacher) is
    the teacher already: a teacher is for states without token shifts, or for more than one that are to be one.)

    checkpoint: a file that a run keeps after every `every` steps (None: after half a minute) and at its end: killed at
    any moment, the same call goes on from there, on a CPU to the same bits. Raises ResumeError, which lists what
    differs, where the file is of another run, and where it is none. checkpointing: the activations of a layer are
    computed again on the way back, which takes a quarter more time and far less memory (None: on a GPU).

    Ctrl-C (which a warning confirms), or `cancel` set by another thread, ends it after the step in hand: the best state
    so far (without held_out, the last) is returned, and its card's recipe tells. on_step is given a TuneStep after each
    step; without it a bar tells how far the run is. A warning and the recipe tell where heads run beyond ten times the
    norms that they have after an example read from zeros. Where torch.distributed is initialised, each process takes
    its share of every batch, the first writes and reports, and all return what one alone would (to 7e-7 of its norm).

    Raises TuneError for examples that cannot be used, and where the memory that it needs (`lab.tuning_memory`) is not
    free; ArgError for a setting out of its range, MismatchError for an init that does not fit, DivergedError where a
    loss or a gradient is not finite, Cancelled where it is stopped while the teacher writes. What ends a run that has
    begun, an error in on_step or a full disk too, has the best state before it as its `state`.
    """
    options = Options(
        steps, lr, batch, seed, shifts, template, check, patience, checkpoint, every, teacher, teacher_weight,
        checkpointing,
    )  # fmt: skip
    session = Session(model, examples, init, held_out, options, cancel)
    if on_step is not None:
        return session.go(on_step, cancel)
    with tqdm(total=steps, delay=2, desc="tune", unit="step", leave=False) as bar:
        return session.go(lambda step: _advance(bar, step), cancel)


def _advance(bar: Any, step: TuneStep) -> None:
    if not bar.n:  # a run that was taken up again did not do its first steps now
        bar.n = bar.initial = bar.last_print_n = step.step - 1
    held = {} if step.best is None else {"held_out": f"{step.best:.4f}"}
    bar.set_postfix(loss=f"{step.loss:.4f}", **held, refresh=False)
    bar.update(step.step - bar.n)
