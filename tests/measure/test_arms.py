import pytest
import torch

from rwkvlab.errors import ArgError
from rwkvlab.measure.arms import name_arms
from rwkvlab.states.state import State


def state(name=""):
    return State(torch.ones(1, 1, 2, 2)).named(name)


def test_zero_stands_first_unless_it_is_there():
    a, b = state("a"), state("b")
    assert list(name_arms([a, b], zero_first=True)) == ["zero", "a", "b"]
    assert list(name_arms([a, None], zero_first=True)) == ["a", "zero"]
    assert list(name_arms({"a": a, "base": None}, zero_first=True)) == ["a", "base"]
    assert list(name_arms(a, zero_first=True)) == ["zero", "a"]
    assert list(name_arms([a], zero_first=False)) == ["a"]


def test_states_are_named_by_card_or_recipe_or_place_and_never_twice():
    a = state("a")
    assert list(name_arms([a, a, 2 * a, state()], zero_first=False)) == ["a", "a (2)", "2 * a", "state 3"]


@pytest.mark.parametrize("states", [3, "emoji", ["emoji"], {"a": 1}, [], {}])
def test_what_is_no_state_is_refused(states):
    with pytest.raises(ArgError, match="states"):
        name_arms(states, zero_first=False)
