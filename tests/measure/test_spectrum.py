import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rwkvlab as lab
from rwkvlab.errors import ArgError
from rwkvlab.measure.spectrum import norms, singular_values, spectrum, svdvals
from rwkvlab.states.state import State


def orthogonal(size, seed):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[
        0
    ]


def planted(sigmas, values=5, keys=7):
    """A state of one layer whose heads have these singular values and random directions."""
    heads = []
    for at, sigma in enumerate(sigmas):
        middle = torch.zeros(values, keys, dtype=torch.float64)
        middle.diagonal()[: len(sigma)] = torch.tensor(sigma, dtype=torch.float64)
        heads.append(orthogonal(values, at) @ middle @ orthogonal(keys, 99 + at))
    return State(torch.stack(heads)[None])


def random(layers=2, heads=3, values=4, keys=6, seed=0):
    return State(torch.randn(layers, heads, values, keys, generator=torch.Generator().manual_seed(seed)))


def test_planted_singular_values_are_found_and_counted():
    table = spectrum(planted([(3.0, 2.0, 1.0), (4.0,), (2.0, 2.0, 2.0, 2.0, 2.0)]))
    assert table["layer"].tolist() == [0, 0, 0] and table["head"].tolist() == [0, 1, 2]
    assert table["norm"].to_numpy() == pytest.approx([14**0.5, 4, 20**0.5], rel=1e-6)
    assert table["largest"].to_numpy() == pytest.approx([3, 4, 2], rel=1e-6)
    assert table["stable_rank"].to_numpy() == pytest.approx([14 / 9, 1, 5], rel=1e-6)
    entropy = -(math.log(1 / 2) / 2 + math.log(1 / 3) / 3 + math.log(1 / 6) / 6)
    assert table["effective_rank"].to_numpy() == pytest.approx([math.exp(entropy), 1, 5], rel=1e-5)
    assert table["energy_1"].to_numpy() == pytest.approx([9 / 14, 1, 1 / 5], rel=1e-6)
    assert table["energy_2"].to_numpy() == pytest.approx([13 / 14, 1, 2 / 5], rel=1e-6)
    assert table["energy_8"].to_numpy() == pytest.approx([1, 1, 1], rel=1e-6) and (table["energy_8"] <= 1).all()


def test_every_singular_value_stands_in_its_row():
    table = singular_values(planted([(3.0, 2.0, 1.0), (4.0,)]))
    assert table["index"].tolist() == [1, 2, 3, 4, 5] * 2 and table["head"].tolist() == [0] * 5 + [1] * 5
    assert table["value"].to_numpy() == pytest.approx([3, 2, 1, 0, 0, 4, 0, 0, 0, 0], abs=1e-6)
    assert table["energy"].to_numpy() == pytest.approx([9 / 14, 13 / 14, 1, 1, 1, 1, 1, 1, 1, 1], rel=1e-6)


def test_layers_and_heads_are_told_apart():
    state = random()
    table = spectrum(state)
    for row in table.itertuples():
        assert row.norm == pytest.approx(float(state.wkv[row.layer, row.head].norm()), rel=1e-6)
        assert row.largest == pytest.approx(
            float(torch.linalg.matrix_norm(state.wkv[row.layer, row.head], 2)), rel=1e-5
        )
    assert norms(state)["norm"].to_numpy() == pytest.approx(table["norm"].to_numpy(), rel=1e-6)


def test_norms_of_layers_are_those_of_all_heads_and_the_shifts():
    state = random().replace(att_shift=torch.full((2, 18), 2.0), ffn_shift=torch.eye(2, 18) * 3)
    table = norms(state, per="layer")
    assert [*table.columns] == ["layer", "norm", "att_shift", "ffn_shift"]
    assert table["norm"].to_numpy() == pytest.approx(state.wkv.flatten(1).norm(dim=1).numpy(), rel=1e-6)
    assert table["att_shift"].to_numpy() == pytest.approx([2 * 18**0.5] * 2) and [*table["ffn_shift"]] == [3, 3]


def test_a_zero_head_has_no_rank_and_no_energy_and_nan_stays_in_its_head():
    wkv = random().wkv.clone()
    wkv[0, 0], wkv[1, 2, 1, 1] = 0, float("nan")
    table = spectrum(State(wkv))
    assert table.loc[0, ["norm", "largest", "stable_rank", "effective_rank"]].tolist() == [0, 0, 0, 0]
    assert table.loc[0].filter(like="energy").isna().all()
    assert table.loc[5].drop(["layer", "head"]).isna().all()
    rest = spectrum(random()).drop([0, 5])
    assert table.drop([0, 5]).equals(rest)
    values = singular_values(State(wkv))
    assert values[values["value"] == 0]["energy"].isna().all() and (values["value"] == 0).sum() == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-18, 1e-3, 7.0, 1e15]), st.booleans())
def test_ranks_and_energies_know_neither_scale_nor_side(seed, scale, turned):
    state = random(seed=seed)
    other = State((state.wkv.mT if turned else state.wkv) * scale)
    one, two = spectrum(state), spectrum(other)
    shared = ["stable_rank", "effective_rank", "energy_1", "energy_2", "energy_4"]
    assert two[shared].to_numpy() == pytest.approx(one[shared].to_numpy(), rel=1e-4)
    assert two["largest"].to_numpy() == pytest.approx(one["largest"].to_numpy() * scale, rel=1e-4)
    assert one["stable_rank"].between(1, 4).all() and one["effective_rank"].between(1, 4).all()
    assert (one["stable_rank"] <= one["effective_rank"] * (1 + 1e-9)).all()


def test_several_states_stand_under_their_names_and_may_differ_in_shape():
    a, b = random(), random(1, 2, 3, 3)
    table = spectrum({"one": a, "two": b}, first=[3])
    assert [*table.columns] == ["state", *spectrum(a, first=[3]).columns]
    assert table[table["state"] == "one"].drop(columns="state").equals(spectrum(a, first=[3]))
    assert table[table["state"] == "two"].drop(columns="state").reset_index(drop=True).equals(spectrum(b, first=[3]))
    assert [*norms([a.named("a"), a.named("a"), b])["state"].unique()] == ["a", "a (2)", "state 2"]
    assert "state" not in norms(a, per="layer") and "state" in singular_values([a])


def test_states_of_a_shelf_are_read_one_at_a_time(monkeypatch):
    import weakref

    _, shelf = lab.bundled()
    made, alive = [], []
    real = type(shelf).__getitem__

    def read(self, name):
        import gc

        gc.collect()
        state = real(self, name)
        made.append(weakref.ref(state.wkv))
        alive.append(sum(ref() is not None for ref in made))
        return state

    monkeypatch.setattr(type(shelf), "__getitem__", read)
    table = spectrum(shelf)
    assert [*table["state"].unique()] == [*shelf] and len(alive) == 6
    assert max(alive) <= 2


def test_nothing_that_is_given_changes_and_no_gradient_is_needed():
    state = State(random().wkv.requires_grad_())
    before = state.wkv.detach().clone()
    for measure in (spectrum, singular_values, norms):
        measure(state)
    assert torch.equal(state.wkv, before)


@pytest.mark.parametrize("bad", [None, [], {}, [None], {"a": None}, 3, "a.pth", [random(), "b"]])
def test_what_is_no_state_is_refused(bad):
    for measure in (spectrum, singular_values, norms):
        with pytest.raises(ArgError, match=r"^states(: |\[)"):
            measure(bad)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "^states: need a State, .* got None$"),
        ([random(), None], r"^states\[1\]: need a State, got NoneType"),
        (iter([None]), r"^states\[0\]: need a State"),
    ],
)
def test_what_is_no_state_is_named_as_it_was_given(bad, words):
    with pytest.raises(ArgError, match=words):
        spectrum(bad)


@pytest.mark.parametrize("first", [[0], [1.5], "12", [True], [None]])
def test_a_number_of_directions_is_a_whole_one(first):
    with pytest.raises(ArgError, match="first: "):
        spectrum(random(), first=first)


def test_norms_are_per_head_or_layer():
    with pytest.raises(ArgError, match="per: "):
        norms(random(), per="state")


@pytest.mark.long
def test_a_large_state_takes_seconds():
    large = State(torch.randn(32, 64, 64, 64))
    begun = time.monotonic()
    table = spectrum(large)
    assert time.monotonic() - begun < 10  # 0.7 s on one quiet core
    assert len(table) == 2048 and np.isfinite(table.to_numpy()).all()


def test_the_singular_values_of_many_heads_are_those_of_each():
    state = random()
    alone = torch.stack([torch.linalg.svdvals(head.double()) for head in state.wkv.flatten(0, 1)])
    assert torch.allclose(svdvals(state.wkv).flatten(0, 1), alone, rtol=1e-12)
