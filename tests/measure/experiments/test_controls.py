import pandas as pd
import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.experiments.controls import CONTROLS, RANDOM, TURNED, WRONG, accuracies, controlled, lifts
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.tasks.task import Task, text_task


def test_controls_are_what_their_names_say(tiny, random_state):
    states = {name: random_state(name, seed) for seed, name in enumerate(("one", "two", "three"))}
    said = tiny.generate("ab", states["three"], temperature=0, max_tokens=3).text
    tasks = [Task("one", ["ab", "c"], [said, "y"]), Task("two", ["ab"], ["z"])]
    rows = controlled(tiny, states, tasks, seed=4)
    assert rows["state"].unique().tolist() == ["zero", "one", "two", "three", *CONTROLS]
    assert rows.groupby("state")["task"].nunique().eq(2).all()
    own = states["one"]
    for name, state in ((RANDOM, random_like(own, 4)), (TURNED, transposed(own))):
        alone = Experiment(tiny, {"it": state}, tasks[0]).run()
        mine = rows[(rows["state"] == name) & (rows["task"] == "one")]
        assert mine["said"].tolist() == alone["said"].tolist()
    wrong, others = (
        rows[(rows["state"] == name) & (rows["task"] == "one")]["right"].mean() for name in (WRONG, "three")
    )
    assert wrong == max(others, rows[(rows["state"] == "two") & (rows["task"] == "one")]["right"].mean())


def test_lifts_are_differences_to_zero_the_largest_first():
    cells = {("zero", "p"): 0.25, ("zero", "q"): 0.5, ("p", "p"): 1.0, ("p", "q"): 0.0}
    rows = pd.DataFrame(
        [(state, task, i < 4 * share) for (state, task), share in cells.items() for i in range(4)],
        columns=["state", "task", "right"],
    )
    assert accuracies(rows).loc["zero"].to_dict() == {"p": 0.25, "q": 0.5}
    assert lifts(rows).to_numpy().tolist() == [["p", "p", 0.75], ["p", "q", -0.5]]


def test_every_task_needs_its_state(tiny, random_state):
    with pytest.raises(ArgError, match="none for 'sort'"):
        controlled(tiny, {"copy": random_state()}, [Task("sort", ["ba"], ["ab"])])


def test_no_task_may_be_called_zero(tiny, random_state):
    with pytest.raises(ArgError, match="'zero' is the name of the start from zeros"):
        controlled(tiny, {"zero": random_state(tiny, 1), "b": random_state(tiny, 2)}, [Task("zero", ["a"], ["b"])])


def test_texts_have_controls_too(tiny, random_state):
    states = {name: random_state(name, seed) for seed, name in enumerate(("one", "texts", "three"))}
    rows = controlled(tiny, states, [Task("one", ["ab"], ["c"]), text_task("texts", ["some text"])])
    mine = rows[rows["task"] == "texts"].set_index("state")["logprob"]
    assert mine[WRONG] == max(mine["one"], mine["three"])
    assert list(accuracies(rows)) == ["one"] and accuracies(rows)["one"].notna().all()
    assert lifts(rows)["task"].unique().tolist() == ["one"]
