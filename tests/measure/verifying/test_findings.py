"""The decisions of `verify` on losses made up for the purpose, such as real models may give."""

import re

import numpy as np
import pandas as pd
import pytest

from rwkvlab.measure.verifying.findings import Gains, effect, size, way_round


def gains(by_start, texts=24, noise=0.02, seed=0):
    """Losses about 2 nats a token that each start lowers by its gain, with noise of each text's own."""
    rng = np.random.default_rng(seed)
    base = rng.normal(2.0, 0.3, texts)
    rows = [
        (text, start, 10, base[text] - gain + noise * rng.normal() * (start != "zero"), 0.1 + abs(gain))
        for start, gain in ({"zero": 0.0} | by_start).items()
        for text in range(texts)
    ]
    return Gains(pd.DataFrame(rows, columns=["text", "start", "tokens", "loss", "kl"]))


HARMFUL = {f"random {i}": -gain for i, gain in enumerate((0.5, 0.9, 1.4, 2.0, 3.0, 0.7))}
IDLE = {f"random {i}": gain for i, gain in enumerate((0.01, -0.03, 0.02, -0.01, 0.03, 0.0))}


@pytest.mark.parametrize("randoms", [HARMFUL, IDLE], ids=["random-states-wreck-it", "random-states-do-little"])
@pytest.mark.parametrize("better", ["as stored", "transposed"])
def test_a_small_gain_decides_where_random_states_never_help_so_much(randoms, better):
    other = {"as stored": "transposed", "transposed": "as stored"}[better]
    found = gains({better: 0.2, other: randoms["random 1"], **randoms})
    way, said = way_round(found, "turn it")
    assert way == better and said.problem == (better == "transposed")
    assert effect(found, way).problem == (better == "transposed")


@pytest.mark.parametrize("stored", [-0.3, 0.0, 0.03])
def test_what_does_not_help_beyond_chance_decides_nothing(stored):
    found = gains({"as stored": stored, "transposed": -0.5, **IDLE})
    way, said = way_round(found, "turn it")
    about = effect(found, way)
    assert way == "undecided" and not said.problem and about.problem and "wrong base model" in about.text
    assert "wrong base model" not in effect(found, way, base=True).text


def test_a_transposed_state_that_harms_less_is_not_called_right():
    found = gains({"as stored": -1.0, "transposed": -0.1, **HARMFUL})
    assert way_round(found, "turn it")[0] == "undecided"


@pytest.mark.parametrize("centre", [-1.0, 0.0, 1.0])
def test_states_that_are_all_random_are_seldom_told_apart(centre):
    rng, decided, runs = np.random.default_rng(1), 0, 200
    for run in range(runs):
        drawn = 0.1 * (rng.normal(size=8) + centre)
        starts = ["as stored", "transposed", *(f"random {i}" for i in range(6))]
        decided += way_round(gains(dict(zip(starts, drawn, strict=True)), seed=run), "")[0] != "undecided"
    assert decided <= 0.08 * runs  # either of the two may pass, each in up to 4 of 100


WILD = {f"random {i}": gain for i, gain in enumerate((0.15, -0.2, 0.1, -0.15, 0.05, -0.1))}


@pytest.mark.parametrize(
    ("randoms", "noise", "words"),
    [
        (
            WILD,
            0.02,
            r"helps by 0\.\d+ where chance may reach 0\.\d+, as far as 6 random states tell: more seeds=",
        ),
        (IDLE, 0.02, "than no state by 0.2.* ± 0.* nats a token, more than 3 standard errors are needed: more texts"),
        (IDLE, 0.001, "all texts gain nearly the same, as copies do: give texts= that differ more"),
    ],
)
def test_what_keeps_it_open_is_said(randoms, noise, words):
    found = gains({"as stored": 0.25, "transposed": -0.5, **randoms}, noise=noise, seed=2)
    if "more texts" in words:
        found.by_start["as stored"] = found.by_start["as stored"] + np.tile([-0.5, 0.5], 12)
    way, said = way_round(found, "turn it")
    about = effect(found, way)
    assert way == "undecided" and about.problem and about.open
    assert re.search(words, said.text) and re.search(words, about.text) and "like those" not in about.text


def test_heads_that_are_not_square_have_one_way_round():
    way, said = way_round(gains({"as stored": 0.3, **IDLE}), "turn it")
    assert way == "undecided" and "not square" in said.text and not said.problem


def test_the_size_names_the_largest_layer():
    assert "2 times" in size([1.0, 4.0], np.array([1.0, 2.0])).text and "layer 1" in size([1, 4], np.ones(2)).text
