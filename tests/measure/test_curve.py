import math

import pytest
import torch

from rwkvlab.errors import ArgError
from rwkvlab.measure.curve import sweep
from rwkvlab.measure.experiment import Experiment
from rwkvlab.states.blend import lerp
from rwkvlab.tasks.task import Task

TASKS = [Task("one", ["ab", "c"], ["x", "yz"]), Task("two", ["ab"], ["q"])]


def test_each_point_is_the_experiment_from_that_blend(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    table = sweep(tiny, TASKS, a, b, [0, 0.25, 1.0])
    assert list(table.columns) == ["t", "task", "examples", "accuracy", "logprob"]
    assert table[["t", "task"]].to_numpy().tolist() == [[t, k] for t in (0.0, 0.25, 1.0) for k in ("one", "two")]
    assert table["examples"].tolist() == [2, 1] * 3
    rows = Experiment(tiny, {"blend": lerp(a, b, 0.25)}, TASKS).run().groupby("task")
    at = table[table["t"] == 0.25].set_index("task")
    assert at["logprob"].to_dict() == pytest.approx(rows["logprob"].mean().to_dict(), abs=1e-3)
    assert at["accuracy"].to_dict() == rows["right"].mean().to_dict()


def test_none_is_the_zero_state_and_how_is_the_users(tiny, random_state):
    b = random_state("b")
    seen = []

    def how(a, b, t):
        assert not a.wkv.any()
        seen.append(t)
        return lerp(a, b, t)

    table = sweep(tiny, TASKS[1], None, b, torch.linspace(0, 1, 3), how=how)
    assert seen == [0, 0.5, 1]
    zero = tiny.score("ab", "q")["logprob"][0]
    assert table["logprob"][0] == pytest.approx(zero, abs=1e-3)


@pytest.mark.parametrize("ts", [[], ["half"], [math.nan], [None]])
def test_a_t_that_is_no_number_is_named(tiny, random_state, ts):
    with pytest.raises(ArgError, match="ts: "):
        sweep(tiny, TASKS, None, random_state(), ts)
