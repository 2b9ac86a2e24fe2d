"""A map of states is their PCA: exact, in state units, whatever their names, and refused where it cannot be."""

import numpy as np
import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError
from rwkvlab.measure.statemap import state_map
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State


def state(seed, shape=(2, 3, 4, 5), scale=1.0, **card):
    wkv = scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return State(wkv, card=StateCard(**card))


def test_it_is_the_pca_of_the_matrices_as_one_vector():
    states = {f"s{seed}": state(seed) for seed in range(6)}
    table = state_map(states, components=3)
    points = np.stack([one.wkv.double().flatten().numpy() for one in states.values()])
    centred = points - points.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    want = left[:, :3] * sizes[:3]
    want *= np.sign(want[np.abs(want).argmax(axis=0), range(3)])
    np.testing.assert_allclose(table[["pc1", "pc2", "pc3"]], want, atol=1e-9)
    np.testing.assert_allclose(table["norm"], np.linalg.norm(points, axis=1))
    np.testing.assert_allclose(table.attrs["explained"], sizes[:3] ** 2 / (sizes**2).sum())
    assert list(table["state"]) == list(states)


def test_with_all_components_the_distances_are_those_of_the_states():
    states = [state(seed, scale=10.0**seed) for seed in range(4)]
    at = state_map(states, components=4)[["pc1", "pc2", "pc3", "pc4"]].to_numpy()
    for i in range(4):
        for j in range(i):
            apart = float((states[i].wkv - states[j].wkv).double().norm())
            assert np.linalg.norm(at[i] - at[j]) == pytest.approx(apart, rel=1e-5)


def test_none_is_the_zero_state_and_names_are_those_that_were_given():
    a = state(0, name="a")
    table = state_map([a, None, 2 * a])
    assert list(table["state"]) == ["a", "zero", "2 * a"] and table["norm"][1] == 0
    assert table["pc1"].diff().abs().tolist()[1:] == pytest.approx([float(a.wkv.norm()), 2 * float(a.wkv.norm())])
    assert table.attrs["explained"] == pytest.approx((1, 0), abs=1e-12)


def test_states_that_are_equal_lie_in_one_place():
    table = state_map({"a": state(0), "b": state(0)})
    assert not table[["pc1", "pc2"]].to_numpy().any() and np.isnan(table.attrs["explained"]).all()


@pytest.mark.parametrize(
    ("states", "error", "words"),
    [
        ([state(0)], ArgError, "need two or more"),
        ([], ArgError, "empty"),
        ([None, None], ArgError, "one of them not None"),
        ("a.pth", ArgError, "need a mapping, a list of State"),
        ([state(0), 5], ArgError, "need a State or None"),
        ({"a": state(0), "<b>": state(0, (2, 3, 4, 4))}, MismatchError, "state_map: '<b>': shapes differ"),
        ([state(0, arch="x070"), state(1, arch="x060")], MismatchError, "architectures differ"),
        ({"a": state(0), "b": state(1) * 0 + State(torch.full((2, 3, 4, 5), torch.inf))}, NonFiniteError, "'b' holds"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(states, error, words):
    with pytest.raises(error, match=words):
        state_map(states)


def test_no_more_components_than_states():
    for components in (0, 3, 1.5):
        with pytest.raises(ArgError, match=r"components: need an integer in \[1, 2\]"):
            state_map([state(0), state(1)], components)


def test_nothing_that_is_given_changes_and_gradients_do_not_matter():
    a, b = state(0), state(1)
    tracked = a.replace(wkv=a.wkv.clone().requires_grad_())
    assert state_map([tracked, b]).equals(state_map([a, b]))
    assert torch.equal(a.wkv, state(0).wkv)
