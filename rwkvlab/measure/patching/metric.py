"""What patched starts are asked, and how an answer is judged: the log-odds of two answers, or the user's own metric."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.experiments.parts import apart, continuation
from rwkvlab.model.reading import Prompt, as_list, prompt_ids
from rwkvlab.model.vocab import END_OF_TEXT
from rwkvlab.shapes import check_items
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ANSWER = 32  # tokens of a greedy answer that are judged
ROWS = 64  # greedy answers written at once, fewer where states are large
BYTES = 2**30  # of states in one batch

Metric = Callable[[Tensor], Any]
Side = str | Sequence[str] | Task


@dataclass(frozen=True)
class Asked:
    """N prompts with what is judged after each: the two answers of the log-odds, or `call` on the next token's logits.

    ids, wanted and other are token ids, one entry a prompt; kept are the indices of these prompts among the
    `given` ones.
    """

    ids: list[list[int]]
    kept: list[int]
    wanted: list[list[int]]
    other: list[list[int]]
    given: int
    call: Metric | None = None

    def of(self, chosen: Sequence[int]) -> Asked:
        """Return some of the prompts, in this order."""
        ids, kept = [self.ids[at] for at in chosen], [self.kept[at] for at in chosen]
        wanted, other = ([side[at] for at in chosen] if side else [] for side in (self.wanted, self.other))
        return replace(self, ids=ids, kept=kept, wanted=wanted, other=other)

    def judge(self, logits: Tensor) -> np.ndarray:
        """Return what `call` makes of logits [B,vocab], [B] float64; raises ArgError for anything else."""
        assert self.call is not None
        given = self.call(logits)
        try:
            values = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=float)
        except (TypeError, ValueError) as error:
            raise ArgError(f"metric: need one number a row of the logits, got {show(given)}") from error
        if values.shape != (len(logits),):
            raise ArgError(f"metric: need one number a row of the logits, [{len(logits)}]; got {list(values.shape)}")
        return values


def ask(model: Model, prompt: Any, base: State, donor: State, metric: Any, what: str) -> Asked:
    """Return what `patch_map` describes as prompt and metric, ready to be judged; `what` opens the warning.

    Prompts to which both answers are the same are left out, with a warning that counts them. Raises ArgError where
    that leaves none, or where prompt or metric is none of the kinds described; PromptError for an empty prompt.
    """
    form = get_template(prompt.template) if isinstance(prompt, Task) else None
    texts = _texts(prompt)
    ids = [prompt_ids(model, text, "prompt" if len(texts) == 1 else f"prompt[{at}]") for at, text in enumerate(texts)]
    everything = list(range(len(ids)))
    if callable(metric) and not isinstance(metric, Task):
        return Asked(ids, everything, [], [], len(ids), metric)
    if metric is None:
        wanted, other = (_greedy(model, ids, state, form) for state in (donor, base))
        hint = "give metric=(wanted answer, other answer)"
    else:
        wanted, other = _pair(model, *_sides(metric, prompt), prompt, texts)
        hint = "give two that differ"
    kept = [at for at in everything if wanted[at] != other[at]]
    if not kept:
        which = "the prompt" if len(ids) == 1 else f"each of the {len(ids)} prompts"
        raise ArgError(f"{what}: the wanted and the other answer to {which} are the same; {hint}")
    if len(kept) < len(ids):
        warnings.warn(
            f"{what}: {len(ids) - len(kept)} of {len(ids)} prompts are left out, both answers to them are the same",
            stacklevel=3,
        )
    return Asked(ids, everything, wanted, other, len(ids)).of(kept)


def _texts(prompt: Any) -> list[Prompt]:
    if isinstance(prompt, Task):
        return list(prompt.formatted())
    listed = as_list(prompt)
    if not listed:
        raise ArgError("prompt: empty; give a text, a list of texts or a Task")
    for at, text in enumerate(listed):
        if text is None or isinstance(text, (dict, bytes, Task)) or not hasattr(text, "__iter__"):
            name = "prompt" if text is prompt else f"prompt[{at}]"
            raise ArgError(f"{name}: need a text, a list of texts or one Task, got {show(type(text).__name__)}")
    return listed


def _sides(metric: Any, prompt: Any) -> tuple[Side, Side]:
    """Return the wanted and the other answers of a metric that is no function."""
    if isinstance(metric, Task):
        if not isinstance(prompt, Task):
            raise ArgError("metric: one Task needs a Task as prompt, whose answers are the others; or give two of them")
        return metric, prompt
    if not isinstance(metric, (tuple, list)) or len(metric) != 2:
        raise ArgError(
            "metric: need None, a pair (wanted, other) of answers, a Task or a function of the next token's logits,"
            f" got {show(metric)}"
        )
    return metric[0], metric[1]


def _pair(model: Model, wanted: Side, other: Side, prompt: Any, texts: list[Prompt]) -> list[list[list[int]]]:
    """Return the ids of the wanted and of the other answers, one a prompt; with their ends as `apart` gives them."""
    names = [f"metric: the {name} answer" for name in ("wanted", "other")]
    written = [_answers(side, prompt, texts, name) for side, name in zip((wanted, other), names, strict=True)]
    ids = [[prompt_ids(model, text, name) for text in side] for side, name in zip(written, names, strict=True)]
    task = next((one for one in (prompt, wanted, other) if isinstance(one, Task)), None)
    end = "" if task is None else get_template(task.template).separator
    for at, both in enumerate(zip(*written, strict=True)):
        if ended := apart(model, both, end):
            ids[0][at], ids[1][at] = map(list, ended)
    return ids


def _answers(side: Any, prompt: Any, texts: list[Prompt], name: str) -> list[str]:
    """Return one answer a prompt as it is written: one string for all, a string each, or those of a Task."""
    task = side if isinstance(side, Task) else prompt if isinstance(prompt, Task) else None
    if isinstance(side, Task):
        if side.formatted() != texts:
            raise ArgError(
                f"{name}: task {show(side.name)} asks other prompts; take one with the same prompts in order"
            )
        if not side.answers:
            raise ArgError(f"{name}: task {show(side.name)} has no answers; take one of another kind, or give strings")
        answers = list(side.answers)
    else:
        answers = [side] * len(texts) if isinstance(side, str) else check_items(name, side)
    if len(answers) != len(texts):
        raise ArgError(f"{name}: need one string, or one a prompt: {len(texts)}; got {len(answers)}")
    if odd := [answer for answer in answers if not isinstance(answer, str) or not answer]:
        raise ArgError(f"{name}: need non-empty strings, got {show(odd[0])}")
    form = get_template(task.template) if task is not None else None
    return answers if form is None else [continuation(form, answer) for answer in answers]


def _greedy(model: Model, ids: list[list[int]], state: State, form: Template | None) -> list[list[int]]:
    """Return the ids of the greedy answer to each prompt from a state: ANSWER at most, end of text included."""
    dims = model.dims
    rows = max(1, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)))
    answers = []
    for at in range(0, len(ids), rows):
        written = model.generate_batch(
            ids[at : at + rows], state, max_tokens=ANSWER, temperature=0.0, top_p=1.0, seed=0,
            stop=() if form is None else form.stop,
        )  # fmt: skip
        if any(one.finish == "interrupted" for one in written):
            raise KeyboardInterrupt
        answers += [[*one.tokens, *([END_OF_TEXT] if one.finish == "end" else [])] for one in written]
    return answers
