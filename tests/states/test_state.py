"""A state is a value: it copies what it is given, never changes, and its arithmetic is that of its numbers."""

import copy
import pickle

import numpy as np
import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, StateOpError
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State

L, H, V, K = 2, 3, 5, 4


def make(name="a", seed=0):
    torch.manual_seed(seed)
    return State(torch.randn(L, H, V, K), att_shift=torch.randn(L, H * K), card=StateCard(name, "x070"))


def test_what_is_given_is_copied():
    wkv, shift = torch.ones(L, H, V, K), torch.ones(L, H * K)
    state = State(wkv, att_shift=shift)
    wkv.zero_()
    shift.zero_()
    assert state.wkv.all()
    assert state.att_shift.all()


def test_arrays_and_other_dtypes_become_fp32():
    assert State(np.ones((L, H, V, K))).wkv.dtype == torch.float32
    assert State(torch.ones(L, H, V, K, dtype=torch.bfloat16)).wkv.dtype == torch.float32


def test_attributes_cannot_be_set_and_writing_in_place_is_noticed():
    state = make()
    with pytest.raises(AttributeError, match="replace"):
        state.wkv = torch.zeros(L, H, V, K)
    state.wkv.add_(1)
    with pytest.raises(StateOpError, match="in place"):
        _ = state.wkv


def test_arithmetic_is_that_of_the_numbers_and_keeps_the_recipe():
    a, b = make("a", 0), make("b", 1)
    mixed = 0.7 * a + np.float64(0.3) * b
    torch.testing.assert_close(mixed.wkv, 0.7 * a.wkv + 0.3 * b.wkv)
    torch.testing.assert_close(mixed.att_shift, 0.7 * a.att_shift + 0.3 * b.att_shift)
    assert mixed.card.recipe == "0.7 * a + 0.3 * b"
    assert mixed.card.parents == ("a", "b")
    assert not (a - a).wkv.any()
    assert torch.equal((-a).wkv, -a.wkv)
    assert torch.equal((a / 2).wkv, a.wkv / 2)
    assert (2 * (a - b)).card.recipe == "2 * (a - b)"


def test_wrong_arithmetic_is_refused():
    a = make()
    for call, error in (
        (lambda: a + 1, ArgError),
        (lambda: a * float("nan"), ArgError),
        (lambda: a * "2", ArgError),
        (lambda: a * a, ArgError),
        (lambda: a / 0, StateOpError),
        (lambda: State(torch.ones(L, H, V)), MismatchError),
        (lambda: State("x"), ArgError),
        (lambda: State(torch.ones(L, H, V, K, dtype=torch.int64)), ArgError),
        (lambda: State(torch.ones(1, H, V, K), like=a), MismatchError),
        (lambda: State(a.wkv, att_shift=torch.ones(L, 5)), MismatchError),
    ):
        with pytest.raises(error):
            call()


def test_gradients_reach_the_tensors_a_state_was_made_from():
    x = torch.ones(L, H, V, K, requires_grad=True)
    (2 * State(x)).wkv.sum().backward()
    assert (x.grad == 2).all()
    assert not State(x).detach().wkv.requires_grad


def test_a_state_survives_pickling_and_copying():
    a = make()
    for back in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a)):
        assert torch.equal(back.wkv, a.wkv)
        assert back.card == a.card
