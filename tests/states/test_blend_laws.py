"""The laws of blending: ends, symmetry, linearity, what commutes and what is done but once; recipes say it all."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvlab.errors import NonFiniteError
from rwkvlab.states.blend import lerp, mix, scale, slerp, splice, truncate
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State

PARTS = ("wkv", "att_shift", "ffn_shift")
LETTERS = "abcdefgh"
laws = settings(max_examples=25, deadline=None)
shares = st.floats(0, 1, allow_subnormal=False)


def make(name, seed, size=1.0, shape=(2, 3, 5, 4)):
    generator = torch.Generator().manual_seed(seed)
    layers, heads, _, keys = shape
    tensors = [
        torch.randn(*s, generator=generator) * size for s in (shape, (layers, heads * keys), (layers, heads * keys))
    ]
    card = StateCard(name, "x070", "ab" * 32)
    return State(tensors[0], att_shift=tensors[1], ffn_shift=tensors[2], card=card)


@st.composite
def states(draw, count):
    """`count` different states of one shape, V < K, V = K or V > K, of sizes from 1e-3 to 1e3, some of them zero."""
    shape = draw(st.sampled_from([(2, 3, 5, 4), (1, 2, 3, 3), (3, 1, 2, 6)]))
    seed = draw(st.integers(0, 10**6))
    sizes = [draw(st.sampled_from([1.0, 1.0, 1e-3, 30.0, 0.0])) for _ in range(count)]
    return [make(LETTERS[at], 100 * seed + at, size, shape) for at, size in enumerate(sizes)]


def near(x, y, tolerance=2e-6):
    """Whether two states agree to a share of the larger one's size."""
    for part in PARTS:
        one, two = getattr(x, part).double(), getattr(y, part).double()
        assert float((one - two).norm()) <= tolerance * (1e-30 + float(one.norm()) + float(two.norm())), part
    return True


def equal(x, y):
    return all(torch.equal(getattr(x, part), getattr(y, part)) for part in PARTS)


def angle(x, y):
    x, y = x.wkv.double().flatten(2), y.wkv.double().flatten(2)
    half = (x / x.norm(dim=2, keepdim=True) - y / y.norm(dim=2, keepdim=True)).norm(dim=2) / 2
    return 2 * half.clamp(max=1).asin()  # exact for small angles, where the arc cosine is not


def norms(state):
    return state.wkv.double().flatten(2).norm(dim=2)


@laws
@given(states(2), shares)
def test_lerp_has_exact_ends_and_is_the_same_from_both(pair, t):
    a, b = pair
    assert equal(lerp(a, b, 0), a) and equal(lerp(a, b, 1), b)
    between = [lerp(a, b, t), lerp(b, a, 1 - t)]
    for part in PARTS:
        size = max(float(getattr(x, part).abs().max()) for x in pair)
        torch.testing.assert_close(*(getattr(x, part) for x in between), atol=3e-7 * size, rtol=0)


@laws
@given(states(2), shares, shares)
def test_a_lerp_of_lerps_is_a_lerp(pair, t, u):
    a, b = pair
    whole = lerp(a, b, t * u)
    for part in PARTS:
        size = max(float(getattr(x, part).abs().max()) for x in pair)
        found = getattr(lerp(a, lerp(a, b, t), u), part)
        torch.testing.assert_close(found, getattr(whole, part), atol=1e-6 * size, rtol=0)


@laws
@given(states(3), shares, st.permutations(range(3)))
def test_mix_is_linear_and_knows_no_order(three, t, order):
    weights = [t / 2, 0.5 - t / 2, 0.5]
    mixed = mix(three, weights)
    size = sum(norms(x).max() for x in three)
    shuffled = mix([three[at] for at in order], [weights[at] for at in order])
    by_hand = weights[0] * three[0] + weights[1] * three[1] + weights[2] * three[2]
    doubled = mix([scale(x, 2) for x in three], weights)
    for other in (shuffled, by_hand, scale(doubled, 0.5)):
        assert float((other.wkv - mixed.wkv).norm()) <= 1e-6 * float(size) * 3
    assert equal(mix(three, [0, 1, 0]), three[1])
    assert near(mix(three[:2], [1 - t, t]), lerp(*three[:2], t))
    assert near(mix([three[0]] * 3, weights), three[0])


@laws
@given(states(2), shares)
def test_slerp_turns_evenly_and_its_norm_goes_straight(pair, t):
    a, b = pair
    got = slerp(a, b, t)
    straight = (1 - t) * norms(a) + t * norms(b)
    there = (norms(a) > 0) & (norms(b) > 0)
    if bool(there.all()):
        torch.testing.assert_close(norms(got), straight, rtol=1e-5, atol=0)
        whole = angle(a, b)
        torch.testing.assert_close(angle(a, got), t * whole, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(angle(got, b), (1 - t) * whole, rtol=1e-4, atol=2e-6)
    else:
        assert near(got, lerp(a, b, t))
    assert near(slerp(a, b, 0), a)
    assert near(slerp(a, b, 1), b)
    assert near(got, slerp(b, a, 1 - t), 2e-5)
    assert torch.equal(got.att_shift, lerp(a, b, t).att_shift)


@laws
@given(states(1), shares, st.floats(0.01, 50))
def test_slerp_of_parallel_heads_is_lerp(one, t, gain):
    (a,) = one
    other = scale(a, gain)
    assert near(slerp(a, other, t), lerp(a, other, t))


@laws
@given(states(1), st.floats(-8, 8), st.floats(-8, 8))
def test_gains_multiply(one, x, y):
    (a,) = one
    assert near(scale(scale(a, x), y), scale(a, x * y)) or abs(x * y) < 1e-30
    assert equal(scale(a, 1), a)
    assert equal(scale(a, -1), -a)
    assert not scale(a, 0).wkv.any()


@laws
@given(states(3), st.integers(0, 2**6 - 1), st.integers(0, 2**6 - 1))
def test_splices_are_done_but_once_and_disjoint_ones_commute(three, one, two):
    base, donor, third = three
    layers, heads = base.wkv.shape[:2]
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    first = [place for at, place in enumerate(every) if one >> at & 1]
    second = [place for at, place in enumerate(every) if two >> at & 1 and not one >> at & 1]
    spliced = splice(base, donor, first)
    assert equal(splice(spliced, donor, first), spliced)
    assert equal(splice(splice(base, donor, first), third, second), splice(splice(base, third, second), donor, first))
    assert equal(splice(splice(base, donor, first), base, first), base)
    assert torch.equal(splice(base, donor, every).wkv, donor.wkv)
    assert torch.equal(splice(base, donor, every).att_shift, base.att_shift)
    assert equal(splice(base, donor, first[::-1] * 2), spliced)
    rest = [place for place in every if place not in first]
    assert equal(splice(donor, base, rest).replace(att_shift=base.att_shift, ffn_shift=base.ffn_shift), spliced)


@laws
@given(states(1), st.integers(0, 6))
def test_truncation_is_the_best_of_its_rank(one, rank):
    (a,) = one
    rank = min(rank, *a.wkv.shape[2:])
    got = truncate(a, rank)
    tail = torch.linalg.svdvals(a.wkv.double())[..., rank:].square().sum(-1)  # [L,H]
    error = (got.wkv.double() - a.wkv.double()).square().sum((2, 3))
    scaled = norms(a).square().clamp(min=1e-30)
    torch.testing.assert_close(error / scaled, tail / scaled, atol=1e-5, rtol=1e-4)
    assert near(truncate(got, rank), got)
    if rank == min(a.wkv.shape[2:]):
        assert near(got, a)
    if rank > 0 and a.wkv.any():
        torch.testing.assert_close(
            torch.linalg.svdvals(got.wkv)[..., 0], torch.linalg.svdvals(a.wkv)[..., 0], rtol=1e-4, atol=0
        )


@laws
@given(states(3))
def test_states_are_added_as_vectors_are(three):
    a, b, c = three
    size = float(sum(norms(x).max() for x in three)) + 1e-30
    for one, two in (
        (a + b, b + a),
        ((a + b) + c, a + (b + c)),
        ((a + b) - b, a),
        (a - a, 0 * a),
        (2 * (a + b), 2 * a + 2 * b),
        (a / 4, 0.25 * a),
        (a - b, -(b - a)),
    ):
        assert float((one.wkv - two.wkv).norm()) <= 2e-6 * size


def evaluate(recipe, names):
    """Work a recipe out again from the states that it names."""
    places = re.sub(r"splice\((\w), (\w), ([LH0-9, -]+)\)", r"splice(\1, \2, at('\3'))", recipe)

    def at(text):
        found = []
        for layer, first, last in re.findall(r"L(\d+)(?:H(\d+)(?:-(\d+))?)?", text):
            heads = range(int(first), int(last or first) + 1) if first else range(3)
            found += [(int(layer), head) for head in heads]
        return found

    return eval(places, {**names, "lerp": lerp, "slerp": slerp, "splice": splice, "truncate": truncate, "at": at})


@laws
@given(st.floats(0, 1), st.floats(-3, 3), st.sets(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1))
def test_a_recipe_worked_out_again_gives_the_state(t, x, places):
    names = {letter: make(letter, at) for at, letter in enumerate("abc")}
    a, b, c = names.values()
    for made in (
        lerp(a, b, t),
        slerp(a, b, t),
        mix([a, b, c], [t / 2, 1 - t, t / 2]),
        mix([a, b], [1 + x, -x], extrapolate=True),
        splice(a, b, list(places)),
        truncate(lerp(a, slerp(b, c, t), 0.25), 2),
        lerp(scale(a + b, x), c - (a - b), t) / 3,
        x * -(a + b) - (c - b) / 7,
    ):
        assert near(evaluate(made.card.recipe, names), made, 1e-6), made.card.recipe
        assert set(made.card.parents) <= {"a", "b", "c"}


def test_places_stand_in_the_recipe_as_runs_and_layers():
    a, b = make("a", 0), make("b", 1)
    at = [(0, 2), (0, 0), (1, 1), (1, 0), (1, 2), (0, 2)]
    assert splice(a, b, at).card.recipe == "splice(a, b, L0H0, L0H2, L1)"
    assert splice(a, b, [(0, 1), (0, 2)]).card.recipe == "splice(a, b, L0H1-2)"
    assert splice(a, b, []).card.recipe == "splice(a, b, nowhere)"
    assert lerp(a, b, 1 / 3).card.recipe == "lerp(a, b, 0.333333333)"
    assert lerp(a, b, 0.1 + 0.2).card.recipe == "lerp(a, b, 0.3)"


def test_numbers_of_numpy_and_torch_are_numbers():
    a, b = make("a", 0), make("b", 1)
    assert equal(lerp(a, b, np.float32(0.25)), lerp(a, b, 0.25))
    assert equal(slerp(a, b, np.float64(0.25)), slerp(a, b, 0.25))
    assert equal(mix([a, b], np.array([0.25, 0.75])), mix([a, b], [0.25, 0.75]))


def test_the_gradient_of_slerp_is_finite_where_there_is_no_arc():
    a, b = make("a", 0), make("b", 1)
    wkv, other = a.wkv.clone(), b.wkv.clone()
    wkv[0, 0], other[0, 1], other[1, 0], other[1, 1] = 0, 0, 2 * wkv[1, 0], -wkv[1, 1]
    x, y = wkv.requires_grad_(), other.requires_grad_()
    slerp(a.replace(wkv=x), b.replace(wkv=y), 0.3).wkv.square().sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()
    assert x.grad[1, 2].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_by_every_blend(value):
    a = make("a", 0)
    wkv = a.wkv.clone()
    wkv[1, 2, 3, 1] = value
    bad = a.replace(wkv=wkv)
    for blend in (
        lambda: lerp(a, bad, 0.5),
        lambda: slerp(bad, a, 0.5),
        lambda: mix([a, bad], [0.5, 0.5]),
        lambda: scale(bad, 2),
        lambda: splice(a, bad, [(1, 2)]),
        lambda: truncate(bad, 1),
    ):
        with pytest.raises(NonFiniteError, match="layer 1 is not finite"):
            blend()
    assert torch.equal(splice(a, bad, [(0, 0)]).wkv[0, 0], bad.wkv[0, 0])
