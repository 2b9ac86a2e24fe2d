import itertools
import math

import numpy as np
import pytest
import torch

from rwkvlab.errors import ArgError
from rwkvlab.measure.patching import sets as patch_sets
from rwkvlab.measure.patching.sets import smallest_set
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.blend import splice
from rwkvlab.states.state import State

PROMPTS = ["ab", "c d", "efg", "hij", "k", "lmn"]
PAIR = ("x", "yz")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model with eight heads, of which those at (0, 1) and (1, 2) alone are read from."""
    dims = Dims("x070", L=2, H=4, C=32, K=8, V=8, ffn=64, vocab=257)
    weights = random_weights(dims, {"w": 4, "a": 4, "v": 4, "g": 4}, seed=5)
    for layer, kept in ((0, 1), (1, 2)):
        output = weights[f"blocks.{layer}.att.output.weight"].view(32, 4, 8)
        output[:, [head for head in range(4) if head != kept]] = 0
    path = tmp_path_factory.mktemp("sets") / "two.pth"
    torch.save(weights, path)
    return load_model(path, tokenizer="bytes")


@pytest.fixture(scope="module")
def pair(model):
    """Base and donor, the donor above the base in PAIR."""
    generator = torch.Generator().manual_seed(8)
    states = [State(2 * torch.randn(2, 4, 8, 8, generator=generator), like=model) for _ in range(2)]
    return sorted(states, key=lambda state: log_odds(model, state, PROMPTS).mean())


def log_odds(model, state, prompts):
    return np.subtract(*(model.score(prompts, [side] * len(prompts), state)["logprob"] for side in PAIR))


def test_the_heads_that_are_read_are_found_and_no_others_are_needed(model, pair):
    table = smallest_set(model, PROMPTS, *pair, metric=PAIR, until=0.999)
    assert set(zip(table["layer"], table["head"], strict=True)) <= {(0, 1), (1, 2)}
    last = table.iloc[-1]
    assert table["size"].tolist() == [1, 2]
    assert last["share"] == pytest.approx(1, abs=1e-3)
    assert last["effect"] == pytest.approx(table.attrs["whole"], abs=1e-3)
    assert last["random"] < last["effect"]


def test_heads_are_chosen_on_one_half_and_reported_on_the_other(model, pair, monkeypatch):
    seen = []
    real = patch_sets.judged

    def spy(model, asked, *rest):
        seen.append(asked.kept)
        return real(model, asked, *rest)

    monkeypatch.setattr(patch_sets, "judged", spy)
    table = smallest_set(model, PROMPTS, *pair, metric=PAIR, until=None, seed=1)
    *choosing, held = seen
    assert len({tuple(one) for one in choosing}) == 1
    assert sorted(choosing[0] + held) == list(range(6)) and len(held) == 3
    assert table.attrs["prompts"] == table.attrs["chosen_on"] == 3 and table.attrs["held_out"]
    base, donor = pair
    on, off = ([PROMPTS[at] for at in some] for some in (choosing[0], held))
    taken = []
    for row in table.itertuples():  # by hand: every one of the heads left, and the best of them
        left = [place for place in itertools.product((0, 1), range(4)) if place not in taken]
        gains = {place: log_odds(model, splice(base, donor, [*taken, place]), on).mean() for place in left}
        assert gains[row.layer, row.head] == pytest.approx(max(gains.values()), abs=1e-4)
        taken.append((row.layer, row.head))
        gained = log_odds(model, splice(base, donor, taken), off) - log_odds(model, base, off)
        assert row.effect == pytest.approx(gained.mean(), abs=1e-3)
    assert len(table) == 8
    assert table["share"].iloc[-1] == pytest.approx(1, abs=1e-3)  # all heads, and no shifts
    assert table["random"].iloc[-1] == pytest.approx(table["effect"].iloc[-1], abs=1e-3)


def test_random_sets_are_seeded_and_of_the_same_size(model, pair):
    base, donor = pair
    settings = {"metric": PAIR, "until": None, "sets": 200}
    with pytest.warns(UserWarning, match="smallest_set: one distinct prompt"):
        table = smallest_set(model, "ab", base, donor, **settings)
    with pytest.warns(UserWarning, match="smallest_set: one distinct prompt"):
        again = smallest_set(model, "ab", base, donor, **settings)
    assert again.equals(table) and not table.attrs["held_out"]
    start = log_odds(model, base, ["ab"]).item()
    places = list(itertools.product((0, 1), range(4)))
    for row in table[table["size"].isin([1, 2, 7])].itertuples():
        sets = list(itertools.combinations(places, row.size))
        gains = [log_odds(model, splice(base, donor, some), ["ab"]).item() - start for some in sets]
        # fewer than 200: they are all there, each once
        assert row.random_sets == len(sets) and row.random == pytest.approx(np.mean(gains), abs=1e-4)
        low, high = np.quantile(gains, (0.025, 0.975))
        assert (row.random_low, row.random_high) == pytest.approx((low, high), abs=1e-4)
    single = smallest_set(model, PROMPTS, base, donor, metric=PAIR, until=None, sets=1)
    assert single["random"].equals(single["random_low"]) and single["random"].equals(single["random_high"])


def test_random_sets_are_different_and_of_the_same_candidates(model, pair, monkeypatch):
    seen = []
    real = patch_sets._drawn
    monkeypatch.setattr(patch_sets, "_drawn", lambda *args: seen.append((args[0], real(*args))) or seen[-1][1])
    table = smallest_set(model, PROMPTS, *pair, metric=PAIR, until=None, candidates=6, sets=18)
    pool = set(table["layer"] * 4 + table["head"])
    assert len(pool) == len(table) == 6
    for size, (given, drawn) in enumerate(seen, 1):
        assert set(given) == pool and {len(set(one)) for one in drawn} == {size}
        assert set().union(*drawn) <= pool
        assert len(drawn) == len({frozenset(one) for one in drawn}) == min(18, math.comb(6, size))
    assert table["random_sets"].tolist() == [6, 15, 18, 15, 6, 1]
    assert table["random"].iloc[-1] == pytest.approx(table["effect"].iloc[-1], abs=1e-4)


def test_a_repeated_prompt_stays_on_its_side(model, pair, monkeypatch):
    seen = []
    real = patch_sets.judged
    monkeypatch.setattr(patch_sets, "judged", lambda m, asked, *rest: seen.append(asked.ids) or real(m, asked, *rest))
    repeated = PROMPTS[:3] * 4
    table = smallest_set(model, repeated, *pair, metric=PAIR, most=2, until=None, seed=2)
    choosing, held = ({tuple(ids) for ids in side} for side in (seen[0], seen[-1]))
    assert not choosing & held and len(choosing) == 1 and len(held) == 2
    assert (table.attrs["chosen_on"], table.attrs["prompts"], table.attrs["given"]) == (4, 8, 12)
    with pytest.warns(UserWarning, match="smallest_set: one distinct prompt"):
        same = smallest_set(model, PROMPTS[:1] * 6, *pair, metric=PAIR, most=1)
    assert not same.attrs["held_out"]


def test_until_most_and_candidates_end_the_search(model, pair):
    base, donor = pair
    full = smallest_set(model, PROMPTS, base, donor, metric=PAIR, until=None)
    assert len(smallest_set(model, PROMPTS, base, donor, metric=PAIR, until=0)) == 1
    assert len(smallest_set(model, PROMPTS, base, donor, metric=PAIR, until=None, most=3)) == 3
    few = smallest_set(model, PROMPTS, base, donor, metric=PAIR, until=None, candidates=2)
    assert len(few) == 2 and few["head"][0] == full["head"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sets": 0}, "sets: need"),
        ({"most": 9}, "most: need"),
        ({"until": -1}, "until: need"),
        ({"until": "all"}, "until: need"),
        ({"candidates": 0}, "candidates: need"),
        ({"seed": -1}, "seed: need"),
        ({"metric": PAIR[::-1]}, "smallest_set: the donor is above the base by -"),
        ({"donor": 3}, "donor: need a State"),
    ],
)
def test_what_cannot_be_searched_is_named(model, pair, options, words):
    given = {"base": pair[0], "donor": pair[1], "metric": PAIR} | options
    with pytest.raises(ArgError, match=words):
        smallest_set(model, PROMPTS, **given)
