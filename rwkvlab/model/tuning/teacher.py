"""The teacher of a run of tuning: the same model after a prompt or from another state; it can write answers too."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rwkvlab.errors import ArgError, Cancelled, show
from rwkvlab.model.generate import generate_batch
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

TOGETHER = 32  # answers that are written at once
LONGEST = 256  # tokens of an answer


def teacher_state(model: Model, teacher: str | State | None) -> tuple[State | None, str]:
    """Return the state that a teacher reads the examples from, and its words in a recipe."""
    if teacher is None:
        return None, ""
    if isinstance(teacher, State):
        check_fits(teacher, model)
        return teacher, f"teacher {teacher.card.name or teacher.card.recipe or 'a state'}"
    if not isinstance(teacher, str) or not (ids := model.encode(teacher)):
        raise ArgError(f"teacher: need a prompt that is not empty, or a State, got {show(teacher)}")
    return model.read(ids), f"teacher of {len(ids)} tokens"


def write_answers(
    model: Model,
    teacher: State,
    prompts: Sequence[list[int]],
    template: str | Template,
    cancel: threading.Event | None = None,
) -> list[tuple[list[int], bool]]:
    """Return for each prompt the tokens that the teacher writes greedily, and whether it came to an end by itself.

    Raises Cancelled where it is stopped.
    """
    stop = get_template(template).stop if template else ()
    found = []
    for at in range(0, len(prompts), TOGETHER):
        part = list(prompts[at : at + TOGETHER])
        for said in generate_batch(model, part, teacher, temperature=0, max_tokens=LONGEST, stop=stop, cancel=cancel):
            if said.finish in ("interrupted", "cancelled"):
                raise Cancelled("tune: stopped while the teacher wrote answers; nothing was trained")
            found.append((list(said.tokens), said.finish != "length"))
    return found
