"""The tables of the evidence: means with their intervals, lifts, margins, what must hold, and what a card keeps."""

import json

import pandas as pd
import pytest

from rwkvlab.bundled.corpus import SOURCES
from rwkvlab.bundled.evidence_tables import by_seed, card_summary, lifts, musts, summary
from rwkvlab.bundled.evidence_texts import margins, text_table
from rwkvlab.measure.interval import interval, wilson


def table(right, *, seeds=(0, 1), n=8, tasks=("plain", "chinese", "json", "swap"), languages=("en", "zh")):
    """Return rows as `run_arms` does; right(task, arm, which, seed, example) -> bool."""
    rows = []
    for task in tasks:
        others = [other for other in tasks if other != task]
        arms = [("no state", -1, "")] + [(name, s, "") for name in ("state", "transposed", "negative") for s in seeds]
        arms += [("wrong", s, other) for other in others for s in seeds] + [("random", 0, str(d)) for d in range(3)]
        for arm, seed, which in arms:
            for at in range(n):
                good, family = right(task, arm, which, seed, at), "function" if task == "swap" else "style"
                head = (task, family, task == "swap", arm, seed, which, at, languages[at % len(languages)])
                rows.append((*head, good, good, True, good, -1.0 - at))
    names = "task family absent arm seed which example language exact style content right logprob"
    return pd.DataFrame(rows, columns=names.split())


def honest(task, arm, which, seed, at):
    """The own state is right but for one example of swap; a wrong plain or chinese one in Chinese."""
    if arm == "state":
        return task != "swap" or at > 0
    same = {task, which} == {"plain", "chinese"} and at % 2 == 1
    return same or (arm != "wrong" and at == 2)


def test_means_and_intervals_are_those_of_their_examples_and_seeds():
    rows = table(lambda task, arm, which, seed, at: (at + max(seed, 0)) % 4 > 0)
    found = summary(rows).set_index(["task", "arm"])
    zero = found.loc["json", "no state"]
    assert (zero["exact"], zero["exact_low"], zero["exact_high"]) == pytest.approx((0.75, *wilson(6, 8)))
    own = found.loc["json", "state"]
    values = [[(at + seed) % 4 > 0 for at in range(8)] for seed in (0, 1)]
    assert (own["style_low"], own["style_high"]) == pytest.approx(interval(values, outcomes=True))
    assert own["seeds"] == 2 and found.loc["json", "wrong"]["seeds"] == 6 and found.loc["json", "random"]["seeds"] == 3
    assert own["logprob"] == pytest.approx(-4.5) and own["logprob_low"] < -4.5 < own["logprob_high"]
    tidy = by_seed(rows)
    assert not tidy.duplicated(["task", "arm", "seed", "which"]).any() and set(tidy["examples"]) == {8}
    assert len(tidy) == len(rows) // 8


def test_lifts_are_over_the_same_questions_and_of_plain_and_chinese_in_english_alone():
    found = lifts(table(honest)).set_index(["task", "control", "which"])
    assert found.loc["plain", "wrong", "chinese"]["lift"] == pytest.approx(-1 / 4)
    assert found.loc["plain", "wrong", "chinese"]["questions"] == "English"
    assert found.loc["plain", "wrong", "json"]["lift"] == pytest.approx(-1 / 8)
    assert found.loc["json", "random", ""]["lift"] == 0 == found.loc["json", "transposed", ""]["lift"]
    assert list(found.loc["json", "random", ""][["low", "high"]]) == [0, 0]  # paired: right where no state is, always
    assert found["lift"].is_monotonic_decreasing


def test_what_must_hold_holds_of_good_numbers_and_not_of_bad_ones():
    good = list(musts(table(honest)))
    assert [one.holds for one in good] == [True] * 3
    assert "least 1.000 of 6 states" in good[0].detail  # swap is absent from training and not counted

    def one_seed_fails(task, arm, which, seed, at):
        return honest(task, arm, which, seed, at) and not (task == "json" and arm == "state" and seed == 1 and at == 0)

    bad = list(musts(table(one_seed_fails)))
    assert [one.holds for one in bad] == [False, True, True] and "json (seed 1) 0.875" in bad[0].detail

    def control_works(task, arm, which, seed, at):
        return honest(task, arm, which, seed, at) or (task == "json" and arm == "transposed" and at == 5)

    above = list(musts(table(control_works)))
    assert [one.holds for one in above] == [True, True, False] and "json: transposed  +0.125" in above[2].detail
    easy = list(musts(table(lambda task, arm, *rest: task == "json" or honest(task, arm, *rest))))
    assert "left out, above 0.5 without a state: json" in easy[0].detail and "of 4 states" in easy[0].detail
    content = table(honest).assign(content=lambda rows: rows["arm"] != "state")
    assert [one.holds for one in musts(content)] == [True, False, True]


def bits(own=1.0, other=2.0, near=1.5):
    rows = []
    for task in SOURCES:
        for which in ("", *SOURCES):
            pair = {task, which} in ({"tang", "song"}, {"austen", "shakespeare"})
            level = own if which == task else near if pair else other
            for seed in (0, 1) if which else (-1,):
                for at in range(6):
                    size = 100 + 10 * at
                    head = (task, "state" if which else "no state", seed, which, at, "all")
                    rows.append((*head, size * (level + 0.01 * at * at + 0.001 * max(seed, 0)), size))
    return pd.DataFrame(rows, columns=["task", "arm", "seed", "which", "window", "part", "bits", "bytes"])


def test_margins_are_paired_and_the_diagonal_must_win():
    found = margins(bits()).set_index(["task", "other"])
    assert found.loc["tang", "song"]["near"] and not found.loc["tang", "austen"]["near"]
    assert found.loc["tang", "song"]["margin"] == pytest.approx(0.5, abs=1e-9)
    assert found.loc["tang", "no state"]["margin"] == pytest.approx(1.0, abs=0.01)
    assert found.loc["tang", "song"]["seeds"] == found.loc["tang", "song"]["of"] == 2
    assert list(musts(table(honest), margins(bits())))[3].holds
    lost = list(musts(table(honest), margins(bits(near=0.9))))[3]
    assert not lost.holds and "tang from song -0.1" in lost.detail
    made = text_table(bits(), by_seed=False).set_index(["task", "arm", "which"])
    total = bits().query("task == 'song' and which == 'song'")[["bits", "bytes"]].sum()
    row = made.loc["song", "state", "song"]
    assert row["bits_per_byte"] == pytest.approx(total["bits"] / total["bytes"])
    assert row["low"] < row["bits_per_byte"] < row["high"]


def test_an_interval_that_is_not_known_is_left_out_of_the_card():
    rows = table(honest, seeds=(0,), n=1)
    said = card_summary({"arms": summary(rows)}, [], 1, [0])
    title = "log-probability of the answer (nats)"
    assert said[title]["state"]["json"] == -1 and "json" not in said[f"{title}: 95 % interval"]["state"]
    json.dumps(said, allow_nan=False)
