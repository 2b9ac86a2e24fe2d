"""Sweep: what a model answers on the way from one initial state to another, and on the ways that are its controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, Cancelled, NonFiniteError, show
from rwkvlab.measure.experiments.parts import continuation
from rwkvlab.measure.interval import interval
from rwkvlab.measure.sweeps.asked import asks_of, batches, listed_tasks, outcomes, questions_of
from rwkvlab.measure.sweeps.mixture import Heard, Voice, listen, rows_at_once
from rwkvlab.model.chat import choose_template
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.blend import lerp, slerp
from rwkvlab.states.controls import random_like
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ARMS = BLEND, MIX, OTHER, ZERO_TO_A, A_TO_RANDOM = (
    "blend", "mix of logits", "another seed", "zero to a", "a to random",
)  # fmt: skip
SPARE = 4  # tokens that an answer may be longer than the longest right one
VALUES = ("accuracy", "logodds", "kl")
COLUMNS = (
    *("arm", "t", "task", "examples"),
    *(f"{v}{end}" for v in VALUES for end in ("", "_low", "_high")),
    *("logprob", "logodds_examples"),
)
How = Callable[[State, State, float], State]


class _Point(NamedTuple):
    """One point of one arm: from `start` to `end` at t; end None is that the logits of a and b are mixed."""

    arm: str
    t: float
    start: State
    end: State | None


def sweep(
    model: Model,
    tasks: Task | Sequence[Task],
    a: State | Sequence[State | None] | None,
    b: State | Sequence[State | None] | None,
    ts: Iterable[float],
    *,
    how: How = lerp,
    other: State | Sequence[State | None] | None = None,
    controls: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Answer the tasks from `how(a, b, t)` for every t in ts, and from the controls at the same t.

    a, b: a State, None (zeros), or lists of them, the same tasks under several seeds, paired; one alone serves all.
    how: `lerp`, `slerp` or a function of (a, b, t). ts: numbers in [0, 1]; any with a function of your own, such as
    `lambda a, b, t: lerp(a, b, t, extrapolate=True)`. The arms: "blend"; and with controls "mix of logits" (no state is
    blended: at every token the logits are (1 - t) those from a + t those from b, both having read the same), "another
    seed" (how(a, other, t), where other is given: a state of b's task from another seed), "zero to a" and "a to random"
    (how(a, random_like(b, seed + pair), t): each pair has a random state of its own, so that its interval holds the
    draw; of one pair it is one draw). Left out are "zero to a" where an a is zero, and "a to random" where a b is.

    Returns one row an (arm, t, task): arm, t, task, examples (how many), accuracy (share of right answers, written
    greedily, or chosen, as in `Experiment`), logodds (of the right answer, nats), kl (mean over the right answer's
    tokens, teacher-forced, of KL(this start ‖ start a), nats a token), each with _low and _high, logprob (natural, of
    the right answer) and logodds_examples (how many logodds is of). logodds is ln p - ln sum of its other choices, or
    of what the other tasks want to the same prompt, where they ask at least half of the task's prompts; else ln p -
    ln(1 - p). An example that is then set against nothing, or against its own answer alone, is left out of it. Where
    the tokens of one such answer begin another's, all are scored with what ends them (the template's separator, else
    the end of text): the odds of "ab" against "abc" would be positive from every state. These are means over examples
    and seeds, with 95 % intervals (`interval`), nan for a single example. Log-odds move where the argmax does not:
    accuracy alone makes any way look like a switch.

    All points of a prompt run in one batch, as far as the states fit in memory; a bar shows after two seconds. Raises
    ArgError for a t that is no number or out of range or lists of unequal length, MismatchError for states of other
    models, NonFiniteError for NaN or infinity in one, Cancelled after Ctrl-C; `how` raises for what it cannot blend.
    """
    if not callable(how):
        raise ArgError(f"how: need a function of (a, b, t), such as lerp or slerp, got {show(how)}")
    try:
        steps = _steps(ts, how)
        check_range("seed", seed, 0, 2**62, whole=True)
        listed = listed_tasks(tasks)
        ends = _paired(model, a, b, other)
        arms, measured = _arms(ends, controls), []
        for number, (start, end, twin) in enumerate(ends):
            points = _points(model, arms, steps, (start, end, twin), seed + number)
            measured.append(_measure(model, listed, points, start, end, how))
        return _table(points, listed, [np.stack(seeds) for seeds in zip(*measured, strict=True)])
    except KeyboardInterrupt:
        raise Cancelled("sweep: interrupted; nothing is kept, run it again") from None


def _arms(ends: list[tuple[State, State, State | None]], controls: bool) -> list[str]:
    """Return the arms that every seed can have."""
    if not controls:
        return [BLEND]
    wanted = {
        OTHER: all(other is not None for _, _, other in ends),
        ZERO_TO_A: all(a.wkv.any() or a.has_shifts for a, _, _ in ends),
        A_TO_RANDOM: all(b.wkv.any() or b.has_shifts for _, b, _ in ends),
    }
    return [arm for arm in ARMS if wanted.get(arm, True)]


def _points(
    model: Model, arms: list[str], steps: list[float], ends: tuple[State, State, State | None], seed: int
) -> list[_Point]:
    a, b, other = ends
    drawn = random_like(b, seed) if A_TO_RANDOM in arms else None
    ways = {BLEND: (a, b), MIX: (a, None), OTHER: (a, other), ZERO_TO_A: (model.zero(), a), A_TO_RANDOM: (a, drawn)}
    return [_Point(arm, t, *ways[arm]) for arm in arms for t in steps]


def _measure(model: Model, tasks: list[Task], points: list[_Point], a: State, b: State, how: How) -> list[np.ndarray]:
    """Return for each task right, log-odds, KL and log-probability, [4,P,N], of every point and example."""
    asks = asks_of(model, tasks)
    asked = questions_of(tasks, asks)
    for form in asked:
        choose_template(form, [a, b])  # warns of a state that was tuned for another
    texts = {(task.template, text) for task in tasks for one in task for text in (one.answer, *one.choices)}
    longest = max(len(model.encode(continuation(get_template(form), text))) for form, text in texts)
    found: dict[tuple[Template, str], list[Heard]] = {}
    most = rows_at_once(model) - 2
    blocks = [points[at : at + most] for at in range(0, len(points), most)]
    width = min(len(points), most) + 2
    parts = [(form, part) for form, some in asked.items() for part in batches(model, form, some, width)]
    with tqdm(total=len(blocks) * len(parts), delay=2, desc="sweep", leave=False) as bar:
        for block in blocks:
            states, voices = [a, b], []
            for point in block:
                voices.append(Voice(0, 1, point.t) if point.end is None else Voice(len(states)))
                if point.end is not None:
                    states.append(_blended(how, point.start, point.end, point.t))
            for form, part in parts:
                said = listen(model, form, part, states, voices, longest + SPARE)
                for question, heard in zip(part, said, strict=True):
                    found.setdefault((form, question), []).append(heard)
                bar.update()
    return [
        outcomes(model, task, examples, asked[get_template(task.template)], found)
        for task, examples in zip(tasks, asks, strict=True)
    ]


def _blended(how: How, start: State, end: State, t: float) -> State:
    made = how(start, end, t)
    if not isinstance(made, State):
        raise ArgError(f"how: need a State for t = {t:g}, got {show(type(made).__name__)}")
    return made


def _table(points: list[_Point], tasks: list[Task], measured: list[np.ndarray]) -> pd.DataFrame:
    """Return the rows; measured is [seeds,4,P,N], one a task."""
    rows = []
    for number, point in enumerate(points):
        for task, values in zip(tasks, measured, strict=True):
            row: list[object] = [point.arm, point.t, task.name, len(task)]
            for part in range(3):
                table = values[:, part, number]  # [seeds,N]
                table = table[:, ~np.isnan(table).any(axis=0)]  # some have no log-odds
                row += [float(table.mean()), *interval(table, outcomes=part == 0)] if table.size else [np.nan] * 3
            rows.append((*row, float(values[:, 3, number].mean()), int((~np.isnan(values[0, 1, number])).sum())))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _paired(model: Model, a: object, b: object, other: object) -> list[tuple[State, State, State | None]]:
    """Return (a, b, other) of every seed; a single one of any serves all."""
    sides = {"a": a, "b": b, "other": other}
    lists = {name: list(x) if isinstance(x, (list, tuple)) else [x] for name, x in sides.items()}
    seeds = max(map(len, lists.values()))
    for name, items in lists.items():
        if len(items) not in (1, seeds):
            raise ArgError(f"{name}: need one state, or as many as the others have, {seeds}; got {len(items)}")
        for at, item in enumerate(items):
            if (item is not None or (name == "other" and other is not None)) and not isinstance(item, State):
                raise ArgError(f"{name}: need a State, None, or a list of them, got {show(type(item).__name__)}")
            if item is not None:
                check_fits(item, model)
                _check_finite(name if len(items) == 1 else f"{name}[{at}]", item)
    first, last, twin = (items * (seeds // len(items)) for items in lists.values())
    return [(x or model.zero(), y or model.zero(), z) for x, y, z in zip(first, last, twin, strict=True)]


def _check_finite(name: str, state: State) -> None:
    for part in (state.wkv, state.att_shift, state.ffn_shift):
        if not part.isfinite().all():
            raise NonFiniteError(f"{name}: the state holds NaN or infinity; load or tune it again")


def _steps(ts: Iterable[float], how: How) -> list[float]:
    """Return the points as numbers, those of lerp and slerp in [0, 1]."""
    steps = [float(check_range("ts", _number(t), -1e6, 1e6)) for t in check_items("ts", ts)]
    if not steps:
        raise ArgError("ts: empty; give at least one number, such as [0, 0.5, 1]")
    beyond = [t for t in steps if not 0 <= t <= 1]
    if beyond and how in (lerp, slerp):
        way = "how=lambda a, b, t: lab.lerp(a, b, t, extrapolate=True)"
        raise ArgError(f"ts: need numbers in [0, 1], got {beyond[0]:g}; to go beyond a and b give {way}")
    return steps


def _number(t: object) -> float:
    try:
        return float(t) if not isinstance(t, (str, bool)) else t  # type: ignore[arg-type, return-value]
    except (TypeError, ValueError):
        raise ArgError(f"ts: need numbers, got {show(t)}") from None
