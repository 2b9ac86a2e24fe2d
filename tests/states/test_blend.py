"""Blends have the right ends, keep their recipe, and touch nothing that they are given."""

import numpy as np
import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, StateOpError
from rwkvlab.states.blend import lerp, mix, scale, slerp, splice, truncate
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State

L, H, V, K = 2, 3, 5, 4
PARTS = ("wkv", "att_shift", "ffn_shift")


def make(name, seed, base="ab" * 32):
    torch.manual_seed(seed)
    card = StateCard(name, "x070", base, "world")
    return State(torch.randn(L, H, V, K), att_shift=torch.randn(L, H * K), ffn_shift=torch.randn(L, H * K), card=card)


@pytest.fixture
def a():
    return make("a", 0)


@pytest.fixture
def b():
    return make("b", 1)


def equal(x, y):
    return all(torch.equal(getattr(x, part), getattr(y, part)) for part in PARTS)


@pytest.mark.parametrize("blend", [lerp, slerp])
def test_a_blend_of_two_starts_at_one_and_ends_at_the_other(a, b, blend):
    assert equal(blend(a, b, 0), a)
    assert equal(blend(a, b, 1), b)
    torch.testing.assert_close(blend(a, a, 0.3).wkv, a.wkv)


def test_lerp_is_the_straight_line(a, b):
    half = lerp(a, b, 0.25)
    for part in PARTS:
        torch.testing.assert_close(getattr(half, part), 0.75 * getattr(a, part) + 0.25 * getattr(b, part))
    torch.testing.assert_close(lerp(a, b, 2, extrapolate=True).wkv, 2 * b.wkv - a.wkv)


def test_a_list_has_one_weight_a_layer(a, b):
    mixed = lerp(a, b, [0, 0.25])
    for part in PARTS:
        one, two, got = (getattr(state, part) for state in (a, b, mixed))
        assert torch.equal(got[0], one[0])
        torch.testing.assert_close(got[1], 0.75 * one[1] + 0.25 * two[1])
    assert mixed.card.recipe == "lerp(a, b, [0, 0.25])" and mixed.card.parents == ("a", "b")
    for gains in ((0, 3), np.array([0.0, 3.0]), torch.tensor([0.0, 3.0])):
        scaled = scale(a, gains)
        assert not scaled.wkv[0].any() and not scaled.ffn_shift[0].any()
        torch.testing.assert_close(scaled.wkv[1], 3 * a.wkv[1])
        assert scaled.card.recipe == "scale(a, [0, 3])" and scaled.card.base == a.card.base


def test_zero_takes_one_head_or_one_layer_away_and_nothing_else(a):
    one, layer = a.zero(layer=1, head=2), a.zero(0)
    want = a.wkv.clone()
    want[1, 2] = 0
    assert torch.equal(one.wkv, want) and a.wkv[1, 2].any()
    assert not layer.wkv[0].any() and torch.equal(layer.wkv[1], a.wkv[1])
    assert torch.equal(one.att_shift, a.att_shift) and torch.equal(layer.ffn_shift, a.ffn_shift)
    assert one.card.recipe == "zero(a, L1H2)" and layer.card.recipe == "zero(a, L0)"
    assert one.card.parents == ("a",) and (one.card.arch, one.card.template) == ("x070", "world")
    again = one.zero(0).card
    assert again.recipe == "zero(zero(a, L1H2), L0)" and again.parents == ("a",)


def test_a_head_that_holds_nan_can_be_taken_away(a):
    broken = a.wkv.clone()
    broken[1, 2, 0, 0] = float("nan")
    assert a.replace(wkv=broken).zero(1, 2).wkv.isfinite().all()


def test_slerp_keeps_to_the_arc_and_lets_the_norm_go_straight(a, b):
    t = 0.3
    got = slerp(a, b, t).wkv.flatten(2)
    x, y = a.wkv.flatten(2), b.wkv.flatten(2)
    torch.testing.assert_close(got.norm(dim=2), (1 - t) * x.norm(dim=2) + t * y.norm(dim=2))
    cos = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cos(x, got, 2).acos(), t * cos(x, y, 2).acos(), atol=1e-4, rtol=1e-4)


def test_slerp_of_zero_and_opposite_heads_is_that_of_lerp(a):
    zero, opposite = a.replace(wkv=torch.zeros(L, H, V, K)), a.replace(wkv=-a.wkv)
    for other in (zero, opposite):
        torch.testing.assert_close(slerp(a, other, 0.25).wkv, lerp(a, other, 0.25).wkv)
        torch.testing.assert_close(slerp(other, a, 0.25).wkv, lerp(other, a, 0.25).wkv)
    assert not slerp(zero, zero, 0.5).wkv.any()


def test_mix_is_the_weighted_sum(a, b):
    c = make("c", 2)
    mixed = mix([a, b, c], [0.5, 0.3, 0.2])
    torch.testing.assert_close(mixed.att_shift, 0.5 * a.att_shift + 0.3 * b.att_shift + 0.2 * c.att_shift)
    assert equal(mix([a, b], [1, 0]), a)
    assert equal(mix([a, b], [2, -1], extrapolate=True), 2 * a - b)
    assert mixed.card.recipe == "0.5 * a + 0.3 * b + 0.2 * c"
    assert mixed.card.parents == ("a", "b", "c")


def test_scale_multiplies(a):
    assert equal(scale(a, 0.5), 0.5 * a)
    assert not scale(a, 0).wkv.any()


def test_splice_takes_the_named_heads_and_no_other(a, b):
    got = splice(a, b, [(0, 1), (1, 2)]).wkv
    chosen = torch.zeros(L, H, dtype=torch.bool)
    chosen[0, 1] = chosen[1, 2] = True
    assert torch.equal(got[chosen], b.wkv[chosen])
    assert torch.equal(got[~chosen], a.wkv[~chosen])
    assert equal(splice(a, b, []), a)


def test_truncate_keeps_the_strongest_directions(a):
    got = truncate(a, 2)
    left, values, right = torch.linalg.svd(a.wkv.double())
    want = (left[..., :2] * values[..., None, :2]) @ right[..., :2, :]
    torch.testing.assert_close(got.wkv.double(), want, atol=1e-5, rtol=1e-5)
    assert (torch.linalg.matrix_rank(got.wkv, rtol=1e-4) == 2).all()
    torch.testing.assert_close(truncate(a, 4).wkv, a.wkv)
    assert not truncate(a, 0).wkv.any()
    assert torch.equal(got.ffn_shift, a.ffn_shift)


def test_truncate_at_full_rank_changes_no_bit():
    a = State(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(truncate(a, 16).wkv, a.wkv)


def test_the_card_tells_how_a_blend_was_made(a, b):
    for made, recipe in (
        (lerp(a, b, 0.25), "lerp(a, b, 0.25)"),
        (slerp(a, b, 0.5), "slerp(a, b, 0.5)"),
        (splice(a, b, [(0, 1)]), "splice(a, b, L0H1)"),
    ):
        assert made.card == StateCard("", "x070", "ab" * 32, "world", recipe, ("a", "b"))
    assert truncate(lerp(a, b, 0.5), 1).card.recipe == "truncate(lerp(a, b, 0.5), 1)"
    assert (lerp(a, b, 0.5) + a).card.parents == ("a", "b")


def test_nothing_that_is_given_changes(a, b):
    before = [getattr(state, part).clone() for state in (a, b) for part in PARTS]
    for made in (
        lerp(a, b, 0.5),
        slerp(a, b, 0.5),
        mix([a, b], [0.5, 0.5]),
        scale(a, 2),
        splice(a, b, [(0, 0)]),
        truncate(a, 1),
    ):
        made.wkv.zero_()
    assert all(map(torch.equal, before, [getattr(state, part) for state in (a, b) for part in PARTS]))


def test_gradients_flow_through_a_blend(a, b):
    x = a.wkv.clone().requires_grad_()
    lerp(a.replace(wkv=x), b, 0.25).wkv.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.75))


def test_wrong_arguments_are_named(a, b):
    for call, error, words in (
        (lambda: lerp(a, b, float("nan")), ArgError, "t: need"),
        (lambda: lerp(a, b, 1.5), ArgError, "extrapolate=True"),
        (lambda: lerp(a, b, True), ArgError, "t: need"),
        (lambda: lerp(a, "b", 0.5), ArgError, "need a State, got str"),
        (lambda: slerp(a, b, -0.1), ArgError, "t: need"),
        (lambda: lerp(a, b, [0.5] * 3), ArgError, "t: need one number, or one for each of 2 layers, got 3"),
        (lambda: lerp(a, b, [0.5, 1.5]), ArgError, r"t\[1\]: need a number in \[0, 1\]"),
        (lambda: lerp(a, b, [[0.5], [0.5]]), ArgError, r"t\[0\]: need"),
        (lambda: scale(a, [1, float("nan")]), ArgError, r"gain\[1\]"),
        (lambda: scale(a, []), ArgError, "2 layers, got 0"),
        (lambda: a.zero(2), ArgError, r"layer: need an integer in \[0, 1\]"),
        (lambda: a.zero(0, -1), ArgError, r"head: need an integer in \[0, 2\]"),
        (lambda: a.zero(0, True), ArgError, "head"),
        (lambda: mix([], []), StateOpError, "0 states"),
        (lambda: mix([a, b], [1]), StateOpError, "2 states and 1 weights"),
        (lambda: mix([a, b], [0.5, 0.6]), StateOpError, "sum to 1.1"),
        (lambda: mix([a, b], [2, -1]), ArgError, r"weights\[0\]"),
        (lambda: scale(a, float("inf")), ArgError, "gain"),
        (lambda: splice(a, b, [(0, 3)]), ArgError, r"at\[0\] head"),
        (lambda: splice(a, b, [(0, 0), (2, 0)]), ArgError, r"at\[1\] layer"),
        (lambda: splice(a, b, [5]), ArgError, r"at\[0\]: need \(layer, head\)"),
        (lambda: truncate(a, 5), ArgError, "rank"),
        (lambda: truncate(a, 1.5), ArgError, "rank: need an integer"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_states_of_other_models_are_refused_by_what_differs(a):
    for other, words in (
        (State(torch.zeros(L, H, V, 8)), r"shapes differ, \[2, 3, 5, 4\] and \[2, 3, 5, 8\]"),
        (a.replace(card=StateCard(arch="x060")), "architectures differ"),
        (make("b", 1, base="54" * 32), "base models differ, 'abab.* and '5454"),
    ):
        for call in (
            lambda o: lerp(a, o, 0.5),
            lambda o: mix([a, o], [0.5, 0.5]),
            lambda o: splice(a, o, []),
            lambda o: a + o,
        ):
            with pytest.raises(MismatchError, match=words):
                call(other)


def test_a_result_that_is_not_finite_or_has_exploded_is_not_silent(a, b):
    huge = a.replace(wkv=torch.full((L, H, V, K), 3e38))
    with pytest.raises(NonFiniteError, match="layer 0"):
        scale(huge, 10)
    with pytest.warns(UserWarning, match="layer 0 grew"):
        scale(a, 1000)


def test_mix_sees_two_bases_behind_a_state_that_names_none():
    states = [make("a", 0, base=""), make("b", 1), make("c", 2, base="cd" * 32)]
    with pytest.raises(MismatchError, match="base models differ"):
        mix(states, [0.5, 0.25, 0.25])


def test_large_numbers_are_no_infinity(a, b):
    large, other = (s.replace(wkv=s.wkv / s.wkv.abs().max() * 3e38) for s in (a, b))
    for made, plain in (
        (lerp(large, other, 0.5), lerp(a * (1 / float(a.wkv.abs().max())), b * (1 / float(b.wkv.abs().max())), 0.5)),
        (slerp(large, large, 0.5), a * (1 / float(a.wkv.abs().max()))),
        (scale(large, 0.5), a * (0.5 / float(a.wkv.abs().max()))),
        (splice(large, other, []), a * (1 / float(a.wkv.abs().max()))),
        (truncate(0.5 * large, 2), truncate(a * (0.5 / float(a.wkv.abs().max())), 2)),
    ):
        torch.testing.assert_close(made.wkv.double() / 3e38, plain.wkv.double(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_still_refused(a, b, bad):
    wkv = a.wkv.clone()
    wkv[1, 0, 0, 0] = bad
    broken = a.replace(wkv=wkv)
    for call in (lambda: lerp(broken, b, 0.5), lambda: slerp(b, broken, 0.5), lambda: truncate(broken, 1)):
        with pytest.raises(NonFiniteError, match="layer 1"):
            call()
