"""What the micro model and its states can do, and what the controls do, on held-out queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.model.engine import Model
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.states.state import State
from rwkvlab.tasks.builtin import micro_tasks


def measure(
    model: Model, states: Mapping[str, State], *, n: int = 500, seed: int = 0, seeds: Sequence[int] = range(8)
) -> dict[str, dict[str, float | list[float]]]:
    """Return, for each task, the shares of `n` held-out queries that are answered wholly and rightly, greedily.

    tag: with the task's tag and no state. zero: neither. state: the task's own state. wrong: the best of the other
    tasks' states. transposed: the task's state transposed. random: one share a seed, states with the singular values of
    the task's state.
    """
    arms: dict[str, State | None] = {"zero": None, **states}
    arms |= {f"transposed {name}": transposed(state) for name, state in states.items()}
    arms |= {f"random {i} {name}": random_like(state, i) for name, state in states.items() for i in seeds}
    said = Experiment(model, arms, micro_tasks(n, seed)).run()
    share = said.groupby(["task", "state"])["right"].mean().to_dict()
    tagged = Experiment(model, {"zero": None}, micro_tasks(n, seed, tagged=True)).run()
    tag = tagged.groupby("task")["right"].mean().to_dict()
    return {
        name: {
            "tag": float(tag[name]),
            "zero": float(share[name, "zero"]),
            "state": float(share[name, name]),
            "wrong": max(float(share[name, other]) for other in states if other != name),
            "transposed": float(share[name, f"transposed {name}"]),
            "random": [float(share[name, f"random {i} {name}"]) for i in seeds],
        }
        for name in states
    }
