"""The join of passages is what the recurrence leaves, for every WKV version, and is named in the card."""

import pytest
import torch
from wkv import wkv6, wkv7

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, StateOpError
from rwkvlab.states.card import StateCard
from rwkvlab.states.soup import Passage, soup
from rwkvlab.states.state import State

L, H, V, K = 1, 2, 5, 4


def operands(version, tokens, generator):
    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    r, k, v, w = draw(1, tokens, H, K), draw(1, tokens, H, K), draw(1, tokens, H, V), -draw(1, tokens, H, K).exp() / 4
    if version == 6:
        return {"r": r, "w": w, "k": k, "v": v, "u": draw(H, K)}
    kk = torch.nn.functional.normalize(draw(1, tokens, H, K), dim=-1)
    return {"r": r, "w": w, "k": k, "v": v, "a": -kk, "b": kk * torch.sigmoid(draw(1, tokens, H, K))}


def run(ops, s0):
    kernel = wkv6 if "u" in ops else wkv7
    return kernel(*ops.values(), s0.double(), backend="naive")[1]


def piece(ops, start=None):
    """A passage of one layer whose inputs are given."""
    zero = torch.zeros(1, H, V, K)
    end = run(ops, zero if start is None else start)
    eye = torch.eye(K).expand(1, H, K, K)
    silent = ops | {"k": 0 * ops["k"], "v": ops["k"] * 0}
    card = StateCard("piece", "x070", "ab" * 32)
    state = State(end, att_shift=torch.full((L, H * K), float(ops["r"].sum())), card=card)
    return Passage(state, run(silent, eye).float(), ops["r"].shape[1], start is None)


@pytest.mark.parametrize("version", [6, 7])
@pytest.mark.parametrize("sizes", [[3], [1, 1], [4, 2, 7], [1, 5, 3, 2]])
def test_with_the_inputs_held_the_join_is_exact(version, sizes):
    generator = torch.Generator().manual_seed(len(sizes))
    parts = [operands(version, size, generator) for size in sizes]
    start = torch.randn(1, H, V, K, generator=generator)
    for first in (None, start):
        state = torch.zeros(1, H, V, K) if first is None else first
        for ops in parts:
            state = run(ops, state)
        got = soup([piece(parts[0], first), *map(piece, parts[1:])])
        torch.testing.assert_close(got.wkv, state.float(), atol=1e-6, rtol=1e-5)
        assert torch.equal(got.att_shift, piece(parts[-1]).state.att_shift)


@pytest.mark.parametrize("version", [6, 7])
def test_the_order_counts_and_sums_and_means_are_something_else(version):
    generator = torch.Generator().manual_seed(1)
    one, two = (piece(operands(version, 6, generator)) for _ in range(2))
    joined = soup([one, two]).wkv
    for other in (soup([two, one]).wkv, one.state.wkv + two.state.wkv, (one.state.wkv + two.state.wkv) / 2):
        assert float((joined - other).norm() / joined.norm()) > 0.1


def test_soups_of_soups_are_one_soup():
    generator = torch.Generator().manual_seed(2)
    one, two, three = (piece(operands(7, 3, generator)) for _ in range(3))
    joined = Passage(soup([one, two]), one.transition @ two.transition, 6)
    torch.testing.assert_close(soup([joined, three]).wkv, soup([one, two, three]).wkv)
    assert torch.equal(soup([one]).wkv, one.state.wkv)


def test_the_card_tells_what_went_in():
    generator = torch.Generator().manual_seed(3)
    one, two = (piece(operands(7, 3, generator)) for _ in range(2))
    two = Passage(two.state.named("two"), two.transition, 3)
    card = soup([one, two]).card
    assert card.recipe == "soup(piece, two)"
    assert card.parents == ("piece", "two")
    assert (card.arch, card.base, card.name) == ("x070", "ab" * 32, "")


def test_nothing_that_is_given_changes():
    parts = [piece(operands(7, 3, torch.Generator().manual_seed(seed))) for seed in range(2)]
    before = [x.clone() for part in parts for x in (part.state.wkv, part.transition)]
    soup(parts).wkv.zero_()
    assert all(map(torch.equal, before, [x for part in parts for x in (part.state.wkv, part.transition)]))


def test_wrong_passages_are_named():
    one, two = (piece(operands(7, 3, torch.Generator().manual_seed(seed))) for seed in range(2))
    started = piece(operands(7, 3, torch.Generator()), torch.ones(1, H, V, K))
    other = Passage(two.state.replace(card=StateCard("x", "x070", "54" * 32)), two.transition, 3)
    unnamed = Passage(one.state.replace(card=StateCard()), one.transition, 3)
    broken = Passage(two.state, two.transition * torch.nan, 3)
    short = Passage(two.state, two.transition[..., :3], 3)
    for parts, error, words in (
        ([], StateOpError, "no passages"),
        (None, ArgError, "passages: need a list"),
        ([one, two.state], ArgError, r"passages\[1\]: need a Passage, got State"),
        ([one, started], StateOpError, r"passages\[1\]: was read from a state"),
        ([one, other], MismatchError, "base models differ"),
        ([unnamed, one, other], MismatchError, "base models differ"),
        ([one, broken], NonFiniteError, "not finite"),
        ([one, short], MismatchError, r"passages\[1\].transition: expected .* got \[1, 2, 4, 3\]"),
    ):
        with pytest.raises(error, match=words):
            soup(parts)
    assert "3 tokens, read from a state" in repr(started)
