"""Summaries: means against the rows, intervals, ratios, and what has no number."""

import io
import math

import numpy as np
import pandas as pd
import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.measure.experiments.summary import summarise
from rwkvlab.measure.interval import interval
from rwkvlab.tasks.task import Task, text_task


def test_a_summary_has_the_means_and_intervals_of_the_rows(tiny, random_state):
    said = tiny.generate("a", temperature=0, max_tokens=2).text
    tasks = [
        Task("one", list("abc"), [said, "x", "y"]),
        text_task("texts", ["abcdef", "x" * 30, "héllo"]),
        Task("word", ["a", "b"], [said[0], "q"], kind="last word"),
    ]
    rows = Experiment(tiny, {"zero": None, "a": random_state("a")}, tasks, max_tokens=2).run()
    table = summarise(rows).set_index(["task", "state"])
    assert list(table.index) == [(task.name, state) for task in tasks for state in ("zero", "a")]
    one = table.loc["one", "zero"]
    part = rows[(rows.task == "one") & (rows.state == "zero")]
    assert one["examples"] == 3 and one["accuracy"] == part["right"].mean() > 0
    assert (one["accuracy_low"], one["accuracy_high"]) == interval(part["right"], outcomes=True)
    assert (one["logprob_low"], one["logprob_high"]) == interval(part["logprob"])
    assert one["logprob"] == pytest.approx(part["logprob"].mean()) and math.isnan(one["perplexity"])
    texts = table.loc["texts", "a"]
    part = rows[(rows.task == "texts") & (rows.state == "a")]
    bits = -part["logprob"].sum() / math.log(2) / sum(len(t.encode()) for t in part["answer"])
    assert texts["bits_per_byte"] == pytest.approx(bits) and math.isnan(texts["accuracy"])
    assert texts["bits_per_byte_low"] < bits < texts["bits_per_byte_high"]
    word = table.loc["word", "zero"]
    assert word["perplexity"] == pytest.approx(math.exp(-word["logprob"]))
    assert word["perplexity_low"] <= word["perplexity"] <= word["perplexity_high"]


def test_the_interval_of_bits_per_byte_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(120):
        sizes = rng.integers(5, 200, 60)
        bits = sizes * 2.0 + rng.normal(size=60) * np.sqrt(sizes) * 3
        rows = pd.DataFrame({"task": "t", "state": "s", "right": False, "bytes": sizes, "logprob": -bits * math.log(2)})
        row = summarise(rows).iloc[0]
        hits += row["bits_per_byte_low"] <= 2.0 <= row["bits_per_byte_high"]
    assert 105 <= hits <= 119  # 114 expected


def test_a_word_that_is_out_of_the_question_has_an_infinite_perplexity():
    rows = pd.DataFrame({"task": "t", "state": "s", "right": False, "kind": "last word", "logprob": [-2000.0, -1.0]})
    row = summarise(rows).iloc[0]
    assert row["perplexity"] == row["perplexity_high"] == math.inf and row["perplexity_low"] < math.e


def test_rows_of_another_table_are_refused():
    for wrong in (None, pd.DataFrame({"task": []})):
        with pytest.raises(ArgError, match="rows: need the table"):
            summarise(wrong)
    assert summarise(pd.DataFrame(columns=["task", "state", "right", "logprob"])).empty


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("right", "yes", "right: need numbers"),
        ("logprob", "x", "logprob: need numbers"),
        ("bytes", "x", "bytes: need numbers"),
        ("bytes", 0, "bytes: need numbers above 0"),
        ("right", 0.5, "right: need True or False, got 0.5"),
    ],
)
def test_text_among_the_numbers_is_told_by_its_column(column, value, said):
    rows = pd.DataFrame({"task": "t", "state": "s", "right": [True, None], "logprob": [-1.0, -2.0], "bytes": [3, 4]})
    read = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    pd.testing.assert_frame_equal(summarise(read), summarise(rows))
    with pytest.raises(ArgError, match=said):
        summarise(rows.astype(object).assign(**{column: [value, None]}))
    with pytest.raises(ArgError, match="two columns are called 'right'"):
        summarise(pd.concat([rows, rows["right"]], axis=1))


def test_what_is_out_of_the_question_has_infinite_bits():
    rows = pd.DataFrame({"task": "t", "state": "s", "right": False, "logprob": [-math.inf, -1.0], "bytes": 2})
    row = summarise(rows).iloc[0]
    assert row["bits_per_byte"] == math.inf and math.isnan(row["bits_per_byte_low"])
