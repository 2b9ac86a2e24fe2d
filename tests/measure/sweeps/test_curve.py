"""Each arm of a sweep is what Experiment, score and the logits themselves say at that point."""

import math

import numpy as np
import pytest
import torch

from rwkvlab.bundled.shelf import bundled
from rwkvlab.errors import ArgError, Cancelled, MismatchError, NonFiniteError
from rwkvlab.measure.along import along
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.measure.sweeps import curve, mixture
from rwkvlab.measure.sweeps.curve import A_TO_RANDOM, ARMS, BLEND, COLUMNS, MIX, OTHER, ZERO_TO_A, sweep
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.blend import lerp, slerp
from rwkvlab.states.controls import random_like
from rwkvlab.states.state import State
from rwkvlab.tasks.builtin import micro_tasks
from rwkvlab.tasks.task import Task, text_task

TASKS = [
    Task("one", ["ab", "c", "defg"], ["x", "yz", "w"]),
    Task("two", ["ab", "defg"], ["q", "uvw"]),
    Task("chat", ["Hello, who are you?", "a\n\nb"], ["Hi there", "yes"], template="world"),
]
VALUES = ["accuracy", "logodds", "kl", "logprob"]


@pytest.fixture(scope="module")
def rwkv6(tmp_path_factory):
    dims = Dims("x060", L=2, H=2, C=16, K=8, V=8, ffn=32, vocab=257)
    path = tmp_path_factory.mktemp("six") / "six.pth"
    torch.save(random_weights(dims, {"maa": 4, "decay": 4}), path)
    return load_model(path, tokenizer="bytes")


def at(table, arm, t, task):
    (row,) = table[(table["arm"] == arm) & (table["t"] == t) & (table["task"] == task)].to_dict("records")
    return row


def test_each_point_is_the_experiment_from_that_state(tiny, random_state):
    a, b, c = (random_state(name, number) for number, name in enumerate("abc"))
    table = sweep(tiny, TASKS, a, b, [0, 0.25, 1.0], other=c)
    assert list(table.columns) == list(COLUMNS)
    keys = [(arm, t, task.name) for arm in ARMS for t in (0.0, 0.25, 1.0) for task in TASKS]
    assert list(table[["arm", "t", "task"]].itertuples(index=False, name=None)) == keys
    assert table["examples"].tolist() == [3, 2, 2] * 15
    starts = {
        BLEND: lerp(a, b, 0.25), OTHER: lerp(a, c, 0.25), ZERO_TO_A: 0.25 * a,
        A_TO_RANDOM: lerp(a, random_like(b, 0), 0.25),
    }  # fmt: skip
    rows = Experiment(tiny, starts, TASKS).run().groupby(["state", "task"])
    for (arm, task), logprob in rows["logprob"].mean().items():
        row = at(table, arm, 0.25, task)
        assert row["logprob"] == pytest.approx(logprob, abs=1e-4)
        assert row["accuracy"] == rows["right"].mean()[arm, task]


def test_what_is_written_is_what_the_experiment_writes():
    model, shelf = bundled()
    a, b = shelf["copy"], shelf["next"]
    tasks = micro_tasks(12, 5)[:4:3]
    ts = [0.3, 0.5, 0.7]
    table = sweep(model, tasks, a, b, ts, controls=False)
    rows = Experiment(model, {f"{t}": lerp(a, b, t) for t in ts}, tasks).run()
    right = rows.groupby(["state", "task"], sort=False)["right"].mean()
    assert 0 < right.mean() < 1
    for row in table.to_dict("records"):
        assert row["accuracy"] == right[f"{row['t']}", row["task"]]


def test_log_odds_are_against_what_the_other_tasks_want_or_against_all_else(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    table = sweep(tiny, TASKS, a, b, [0.5], controls=False)
    half = lerp(a, b, 0.5)

    def p(prompt, answer):
        return math.exp(tiny.score(prompt, answer, half)["logprob"][0])

    x, q, yz, w, uvw = (p(*pair) for pair in (("ab", "x"), ("ab", "q"), ("c", "yz"), ("defg", "w"), ("defg", "uvw")))
    one = [math.log(x / q), math.log(w / uvw)]  # "c" is asked by one task alone, and left out
    rows = [at(table, BLEND, 0.5, name) for name in ("one", "two")]
    assert [row["logodds"] for row in rows] == pytest.approx([np.mean(one), -np.mean(one)], abs=1e-4)
    assert [(row["examples"], row["logodds_examples"]) for row in rows] == [(3, 2), (2, 2)]
    # where the others ask less than half of its prompts, all of them are against all else
    few = sweep(tiny, [TASKS[0], Task("few", ["ab"], ["q"])], a, b, [0.5], controls=False)
    rest = [math.log(odds / (1 - odds)) for odds in (x, yz, w)]
    assert at(few, BLEND, 0.5, "one")["logodds"] == pytest.approx(np.mean(rest), abs=1e-4)
    assert few["logodds_examples"].tolist() == [3, 1]


def test_where_one_answer_begins_the_other_the_odds_follow_the_state():
    model, shelf = bundled()
    prompts = ["abcd>", "wxyz>"]
    tasks = [Task("short", prompts, ["abc", "wxy"]), Task("full", prompts, ["abcd", "wxyz"])]
    table = sweep(model, tasks, None, shelf["copy"], [1], controls=False).set_index("task")
    assert table.loc["full", "logodds"] > 3 and table.loc["short", "logodds"] < -3
    ends = [[[*model.encode(answer), 0] for answer in pair] for pair in (("abc", "abcd"), ("wxy", "wxyz"))]
    scored = model.score(prompts, ends, shelf["copy"])["logprob"].to_numpy().reshape(2, 2)
    assert table.loc["full", "logodds"] == pytest.approx((scored[:, 1] - scored[:, 0]).mean(), abs=1e-4)
    assert table.loc["full", "logprob"] == pytest.approx(scored[:, 1].mean(), abs=1e-4)


def test_each_pair_of_seeds_has_a_random_state_of_its_own(tiny, random_state):
    a, b = [random_state("a", 1)] * 3, random_state("b")
    table = sweep(tiny, TASKS[1], a, b, [1], seed=5)
    row = at(table, A_TO_RANDOM, 1, "two")
    kl = [at(sweep(tiny, TASKS[1], a[0], b, [1], seed=5 + n), A_TO_RANDOM, 1, "two")["kl"] for n in range(3)]
    assert row["kl"] == pytest.approx(np.mean(kl), abs=1e-5) and np.ptp(kl) > 0.01


@pytest.mark.parametrize("normalise", ["none", "token", "byte"])
def test_choices_and_last_words_are_graded_as_in_an_experiment(tiny, random_state, normalise):
    prompts = [f"{letter}?" for letter in "abcdefghijklmnopqrst"]
    choices = [(letter, letter * 3 + "ab") for letter in "ABCDEFGHIJKLMNOPQRST"]
    tasks = [
        Task("pick", prompts, [row[1] for row in choices], kind="choice", choices=choices, normalise=normalise),
        Task("word", prompts, ["x", "y"] * 10, kind="last word"),
    ]
    a, b = random_state("a"), random_state("b", 1)
    table = sweep(tiny, tasks, a, b, [0.5], controls=False)
    right = Experiment(tiny, {"half": lerp(a, b, 0.5)}, tasks).run().groupby("task")["right"].mean()
    assert (right["pick"] > 0) == (normalise != "none")
    assert table["accuracy"].tolist() == [right["pick"], right["word"]]


def test_log_odds_of_a_choice_are_against_all_its_other_choices(tiny, random_state):
    b, choices = random_state(), ["p", "q", "r", "s"]
    task = Task("pick", ["a?"], ["q"], kind="choice", choices=[choices])
    table = sweep(tiny, [task, Task("other", ["a?"], ["zz"])], None, b, [1], controls=False)
    logprob = tiny.score("a?", choices, b)["logprob"].to_numpy()
    odds = logprob[1] - np.logaddexp.reduce(logprob[[0, 2, 3]])
    assert odds < logprob[1] - logprob[[0, 2, 3]].max() - 0.1
    assert table["logodds"][0] == pytest.approx(odds, abs=1e-4)


def test_an_example_whose_rival_wants_the_same_has_no_log_odds(tiny, random_state):
    same, b = Task("same", ["ab", "c"], ["x", "q"]), random_state()
    alone = sweep(tiny, Task("one", ["ab"], ["x"]), None, b, [0.5], controls=False)
    both = sweep(tiny, [Task("one", ["ab", "c"], ["x", "y"]), same], None, b, [0.5], controls=False)
    odds = np.subtract(*tiny.score("c", ["y", "q"], lerp(tiny.zero(), b, 0.5))["logprob"])
    assert both["logodds"].tolist() == pytest.approx([odds, -odds], abs=1e-4)
    assert both["logodds_examples"].tolist() == [1, 1] and both["examples"].tolist() == [2, 2]
    none = sweep(tiny, [Task("one", ["ab"], ["x"]), Task("two", ["ab"], ["x"])], None, b, [0.5], controls=False)
    assert none[["logodds", "logodds_low", "logodds_high"]].isna().all(axis=None)
    assert none["logodds_examples"].eq(0).all() and none["logprob"].notna().all()
    p = math.exp(alone["logprob"][0])
    assert alone["logodds"][0] == pytest.approx(math.log(p / (1 - p)), abs=1e-6)


def test_log_odds_of_one_that_is_nearly_sure_are_against_what_is_left():
    model, shelf = bundled()
    task = micro_tasks(1, 3)[1]
    row = sweep(model, task, None, shelf["reverse"], [1], controls=False).iloc[0]
    logprob = model.score(task.prompts[0], task.answers[0], shelf["reverse"])["logprob"][0]
    assert logprob > -0.01
    assert row["logodds"] == pytest.approx(logprob - math.log(-math.expm1(logprob)), rel=1e-2)


def test_kl_is_that_along_the_right_answer(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    table = sweep(tiny, TASKS, a, b, [0, 0.5])
    half, kl = lerp(a, b, 0.5), []
    for prompt, answer in zip(TASKS[0].prompts, TASKS[0].answers, strict=True):
        kl.append(along(tiny, tiny.encode(prompt), tiny.encode(answer), [a, half]).kl[1].mean())
    row = at(table, BLEND, 0.5, "one")
    assert row["kl"] == pytest.approx(np.mean(kl), rel=1e-3)
    assert row["kl_low"] < row["kl"] < row["kl_high"]
    assert at(table, BLEND, 0, "one")["kl"] < 1e-9
    assert at(table, ZERO_TO_A, 0, "one")["kl"] > 0.01


def test_the_mix_of_logits_has_the_ends_of_the_blend_and_is_itself_between(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    table = sweep(tiny, TASKS, a, b, [0, 0.25, 1])
    for task in TASKS:
        for t in (0, 1):
            ends = [[at(table, arm, t, task.name)[value] for value in VALUES] for arm in (BLEND, MIX)]
            assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    total = []
    for prompt, answer in zip(TASKS[0].prompts, TASKS[0].answers, strict=True):
        ids, wanted = tiny.encode(prompt), tiny.encode(answer)
        one, two = (tiny.forward(ids + wanted[:-1], state).logits[0, len(ids) - 1 :].double() for state in (a, b))
        logp = (0.75 * one + 0.25 * two).log_softmax(-1)
        total.append(float(logp.gather(-1, torch.tensor(wanted)[:, None]).sum()))
    assert at(table, MIX, 0.25, "one")["logprob"] == pytest.approx(np.mean(total), abs=1e-4)


def test_the_mix_of_logits_writes_in_lockstep():
    model, shelf = bundled()
    a, b = shelf["copy"], shelf["next"]
    task, ts = micro_tasks(10, 7)[3], [0.45, 0.6]
    table = sweep(model, task, a, b, ts)
    for t in ts:
        right = [in_lockstep(model, a, b, t, prompt) for prompt in task.prompts]
        assert at(table, MIX, t, "next")["accuracy"] == np.mean(np.array(right) == task.answers)
    assert 0 < table[table["arm"] == MIX]["accuracy"].mean() < 1


def in_lockstep(model, a, b, t, prompt):
    flows, ids, said = [model.begin([state]) for state in (a, b)], model.encode(prompt), []
    while True:
        one, two = (model.run(torch.tensor([ids]), flow) for flow in flows)
        token = int(((1 - t) * one + t * two).argmax())
        if token == 0 or len(said) > 9:
            return model.tokenizer.decode(said)
        said.append(token)
        ids = [token]


def test_small_batches_give_the_same(tiny, random_state, monkeypatch):
    a, b, c = (random_state(name, number) for number, name in enumerate("abc"))
    whole = sweep(tiny, TASKS, a, b, [0.3, 1], other=c)
    monkeypatch.setattr(mixture, "ROWS", 4)
    monkeypatch.setattr(mixture, "NUMBERS", 257 * 30)
    monkeypatch.setattr(mixture, "TOKENS", 1)
    small = sweep(tiny, TASKS, a, b, [0.3, 1], other=c)
    assert small["accuracy"].tolist() == whole["accuracy"].tolist()
    for value in ("logodds", "kl", "logprob"):
        assert small[value].to_numpy() == pytest.approx(whole[value].to_numpy(), abs=1e-4)


def test_seeds_are_paired_and_count_in_the_interval(tiny, random_state):
    ones, twos = [random_state("a", 0), random_state("a", 1)], [random_state("b", 2), random_state("b", 3)]
    both = sweep(tiny, TASKS[0], ones, twos, [0, 0.5], seed=3)
    each = [sweep(tiny, TASKS[0], *pair, [0, 0.5], seed=3 + n) for n, pair in enumerate(zip(ones, twos, strict=True))]
    for value in VALUES:
        mean = (each[0][value] + each[1][value]) / 2
        assert both[value].to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-5)
    spread = both["logodds_high"] - both["logodds_low"]
    assert (spread > 0).all()
    # wrong answers alone have Wilson's interval, whatever the number of seeds
    assert both["accuracy_high"].eq(each[0]["accuracy_high"]).all() and each[0]["accuracy_high"].gt(0.3).all()
    assert both["examples"].eq(3).all()


def test_none_is_the_zero_state_and_how_is_the_users(tiny, random_state):
    b = random_state("b")
    seen = []

    def how(a, b, t):
        assert not a.wkv.any()
        seen.append(t)
        return lerp(a, b, t)

    table = sweep(tiny, TASKS[1], None, b, torch.linspace(0, 1, 3), how=how, controls=False)
    assert seen == [0, 0.5, 1]
    zero = np.mean([tiny.score(*pair)["logprob"][0] for pair in zip(TASKS[1].prompts, TASKS[1].answers, strict=True)])
    assert table["logprob"][0] == pytest.approx(zero, abs=1e-3)


def test_a_control_that_would_be_the_same_all_the_way_is_left_out(tiny, random_state):
    b = random_state("b")
    assert sweep(tiny, TASKS[1], None, b, [0.5])["arm"].tolist() == [BLEND, MIX, A_TO_RANDOM]
    assert sweep(tiny, TASKS[1], b, None, [0.5])["arm"].tolist() == [BLEND, MIX, ZERO_TO_A]
    assert sweep(tiny, TASKS[1], [b, None], b, [0.5])["arm"].tolist() == [BLEND, MIX, A_TO_RANDOM]
    assert sweep(tiny, TASKS[1], b, b, [0.5], controls=False)["arm"].tolist() == [BLEND]


def test_it_runs_on_rwkv_6_along_the_arc(rwkv6):
    generator = torch.Generator().manual_seed(0)
    a, b = (State(torch.randn(2, 2, 8, 8, generator=generator), like=rwkv6) for _ in range(2))
    table = sweep(rwkv6, TASKS, a, b, [0.5], how=slerp)
    rows = Experiment(rwkv6, {"half": slerp(a, b, 0.5)}, TASKS).run().groupby("task")["logprob"].mean()
    for task in TASKS:
        assert at(table, BLEND, 0.5, task.name)["logprob"] == pytest.approx(rows[task.name], abs=1e-4)


def test_nothing_that_is_given_changes(tiny, random_state):
    states = [random_state("a"), random_state("b", 1), random_state("c", 2)]
    before = [state.wkv.clone() for state in states]
    sweep(tiny, TASKS, *states[:2], [0, 1], other=states[2])
    assert all(map(torch.equal, before, [state.wkv for state in states]))


def test_the_blend_gets_there_and_the_random_way_does_not():
    model, shelf = bundled()
    tasks = [task for task in micro_tasks(40, 3) if task.name in ("reverse", "sort")]
    twin = bundled("micro", seed=1)[1]["sort"]
    table = sweep(model, tasks, shelf["reverse"], shelf["sort"], [0, 0.5, 1], other=twin)
    for arm in (BLEND, MIX, OTHER):
        assert at(table, arm, 1, "sort")["accuracy"] > 0.9
        assert at(table, arm, 1, "sort")["logodds"] > 5
        assert at(table, arm, 0, "reverse")["accuracy"] > 0.9
        assert -5 < at(table, arm, 0.5, "sort")["logodds"] < 5
    assert at(table, A_TO_RANDOM, 1, "sort")["accuracy"] < 0.4
    assert at(table, A_TO_RANDOM, 1, "reverse")["accuracy"] < 0.4


def test_ctrl_c_is_said_in_one_line(tiny, random_state, monkeypatch):
    def how(a, b, t):
        raise KeyboardInterrupt

    with pytest.raises(Cancelled, match="sweep: interrupted"):
        sweep(tiny, TASKS, None, random_state(), [0, 1], how=how)
    for name in ("check_fits", "interval", "asks_of"):  # at the door, in the middle and at the end
        with monkeypatch.context() as patched:
            patched.setattr(curve, name, lambda *_, **__: how(0, 0, 0))
            with pytest.raises(Cancelled, match="sweep: interrupted"):
                sweep(tiny, TASKS, None, random_state(), [0, 1])


@pytest.mark.parametrize("ts", [[], ["half"], [math.nan], [None], None, "0.5"])
def test_a_t_that_is_no_number_is_named(tiny, random_state, ts):
    with pytest.raises(ArgError, match="ts: "):
        sweep(tiny, TASKS, None, random_state(), ts)


def test_wrong_arguments_are_named(tiny, random_state):
    b, other = random_state("b"), State(torch.zeros(2, 2, 8, 8))
    for call, error, words in (
        (lambda: sweep(tiny, TASKS, None, "b", [0]), ArgError, "b: need a State, None"),
        (lambda: sweep(tiny, TASKS, [b] * 3, [b] * 2, [0]), ArgError, "b: need one state, or as many .*, 3; got 2"),
        (lambda: sweep(tiny, TASKS, [], b, [0]), ArgError, "a: need one state"),
        (lambda: sweep(tiny, TASKS, other, b, [0]), MismatchError, r"V=8 \(model 16\)"),
        (lambda: sweep(tiny, TASKS, None, b, [0], other=other), MismatchError, r"V=8 \(model 16\)"),
        (lambda: sweep(tiny, [], None, b, [0]), ArgError, "tasks: empty"),
        (lambda: sweep(tiny, text_task("t", ["abc"]), None, b, [0]), ArgError, "right answers .*, got 'text'"),
        (lambda: sweep(tiny, "sort", None, b, [0]), ArgError, "tasks: need"),
        (lambda: sweep(tiny, TASKS, None, b, [2]), ArgError, r"ts: need numbers in \[0, 1\], got 2; .*how=lambda"),
        (lambda: sweep(tiny, TASKS, None, b, [0, -0.5], how=slerp), ArgError, "ts: .* got -0.5"),
        (lambda: sweep(tiny, TASKS, None, b, [0], how="lerp"), ArgError, "how: need a function"),
        (lambda: sweep(tiny, TASKS, None, b, [0], how=lambda a, b, t: t), ArgError, "how: need a State"),
        (lambda: sweep(tiny, TASKS, None, b, [0], seed=-1), ArgError, "seed"),
        (lambda: sweep(tiny, TASKS, nan_state(b), b, [0, 1]), NonFiniteError, "^a: .*NaN"),
        (lambda: sweep(tiny, TASKS, None, [b, nan_state(b)], [0, 1]), NonFiniteError, r"^b\[1\]: .*NaN"),
        (lambda: sweep(tiny, TASKS, None, b, [0], other=nan_state(b)), NonFiniteError, "^other: .*NaN"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            call()


def test_beyond_the_ends_goes_what_its_message_says(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    how = lambda a, b, t: lerp(a, b, t, extrapolate=True)  # noqa: E731
    table = sweep(tiny, TASKS[1], a, b, [-1, 2], how=how)
    row = at(table, BLEND, 2.0, "two")
    pairs = zip(TASKS[1].prompts, TASKS[1].answers, strict=True)
    scores = [tiny.score(*pair, 2 * b - a)["logprob"][0] for pair in pairs]
    assert row["logprob"] == pytest.approx(np.mean(scores), abs=1e-3)


def nan_state(state):
    wkv = state.wkv.clone()
    wkv[1, 0, 0, 0] = math.nan
    return state.replace(wkv=wkv)


@pytest.mark.long
def test_twenty_one_points_on_two_hundred_examples_take_less_than_thirty_seconds():
    import time

    model, shelf = bundled()
    tasks = [task for task in micro_tasks(100) if task.name in ("reverse", "sort")]
    twin = bundled("micro", seed=1)[1]["sort"]
    begin = time.perf_counter()
    table = sweep(model, tasks, shelf["reverse"], shelf["sort"], [i / 20 for i in range(21)], other=twin)
    assert time.perf_counter() - begin < 30
    assert len(table) == 5 * 21 * 2
    assert tuple(table["arm"].unique()) == ARMS
