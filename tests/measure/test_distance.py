import math

import pytest
import torch

from rwkvlab.errors import ArgError
from rwkvlab.measure.distance import head_distance
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State


def state(seed=0, layers=2, heads=3, values=4, keys=5):
    return State(torch.randn(layers, heads, values, keys, generator=torch.Generator().manual_seed(seed)))


def test_only_the_changed_head_moves():
    a = state()
    wkv = a.wkv.clone()
    wkv[1, 2] += 1.0
    table = head_distance(a, a.replace(wkv=wkv))
    moved = table[(table.layer == 1) & (table["head"] == 2)].iloc[0]
    assert moved.frobenius == pytest.approx(math.sqrt(20))
    rest = table.drop(moved.name)
    assert (rest.frobenius == 0).all() and (rest.relative == 0).all()
    assert rest.cosine.to_numpy() == pytest.approx(1.0)


def test_the_numbers_are_those_of_the_definition():
    a, b = state(0), state(1)
    row = head_distance(a, b).iloc[4]
    assert (row.layer, row["head"]) == (1, 1)
    x, y = a.wkv[1, 1].double(), b.wkv[1, 1].double()
    assert row.frobenius == pytest.approx(float(((y - x) ** 2).sum().sqrt()))
    assert row.relative == pytest.approx(float((y - x).norm() / x.norm()))
    assert row.cosine == pytest.approx(float((x * y).sum() / (x.norm() * y.norm())))


def test_a_zero_head_has_no_direction_and_no_scale():
    a, b = state(0), state(1)
    wkv = a.wkv.clone()
    wkv[0, 0] = 0
    table = head_distance(a.replace(wkv=wkv), b)
    assert table.relative[0] == math.inf and math.isnan(table.cosine[0])
    assert table.frobenius[0] == pytest.approx(float(b.wkv[0, 0].norm()))
    assert table.iloc[1:].notna().all(axis=None)
    back = head_distance(b, a.replace(wkv=wkv))
    assert back.relative[0] == pytest.approx(1.0) and math.isnan(back.cosine[0])


def test_cosine_is_that_of_the_direction_however_small_the_state():
    a = state()
    table = head_distance(a * 1e-25, a * -3)
    assert table.cosine.to_numpy() == pytest.approx(-1.0)


def test_nothing_that_is_given_changes():
    a, b = state(0), state(1)
    before = a.wkv.clone(), b.wkv.clone()
    head_distance(a, b)
    assert torch.equal(a.wkv, before[0]) and torch.equal(b.wkv, before[1])


def test_states_of_other_models_are_refused_with_what_differs():
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 5\] and \[2, 2, 4, 5\]"):
        head_distance(state(), state(heads=2))
    old, new = (state().replace(card=StateCard(arch=arch)) for arch in ("x060", "x070"))
    with pytest.raises(ValueError, match="x060"):
        head_distance(old, new)
    with pytest.raises(ArgError, match="b: need a State"):
        head_distance(state(), None)
