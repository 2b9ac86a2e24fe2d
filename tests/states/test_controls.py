import pytest
import torch

from rwkvlab.errors import ArgError, NonFiniteError, StateOpError
from rwkvlab.states.controls import random_like, shuffled, transposed
from rwkvlab.states.state import State


def with_shifts(seed=0, values=5, keys=7):
    g = torch.Generator().manual_seed(seed)
    return State(
        torch.randn(3, 2, values, keys, generator=g),
        att_shift=torch.randn(3, 2 * keys, generator=g),
        ffn_shift=torch.randn(3, 2 * keys, generator=g),
    ).named("文言文")


def test_random_like_keeps_the_singular_values_of_every_head():
    state = with_shifts()
    other = random_like(state, seed=1)
    a, b = (torch.linalg.svdvals(s.wkv.double()) for s in (state, other))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for shift in ("att_shift", "ffn_shift"):
        torch.testing.assert_close(getattr(state, shift).norm(dim=-1), getattr(other, shift).norm(dim=-1))


def test_random_like_keeps_nothing_else():
    state = with_shifts(values=16, keys=16)
    cosines = []
    for seed in range(20):
        other = random_like(state, seed)
        cosines.append(torch.cosine_similarity(state.wkv.flatten(2), other.wkv.flatten(2), dim=-1).flatten())
    cosines = torch.cat(cosines)  # of 120 pairs of random directions in 256 dimensions: mean 0, deviation 1/16
    assert cosines.mean().abs() < 4 / 16 / 120**0.5
    assert 0.5 / 16 < cosines.std() < 2 / 16


def test_random_like_draws_directions_evenly():
    state = State(torch.zeros(1, 1, 3, 3).index_put((torch.tensor(0),) * 4, torch.tensor(2.0)))
    first = torch.stack([random_like(state, seed).wkv[0, 0] for seed in range(400)])  # 2 u v^T
    assert first.mean(0).abs().max() < 4 * 2 / 3 / 20  # an entry has deviation 2/3
    torch.testing.assert_close((first**2).mean(0), torch.full((3, 3), 4 / 9), rtol=0.25, atol=0)


def test_the_same_seed_gives_the_same_state_and_another_seed_another():
    state = with_shifts()
    assert torch.equal(random_like(state, 3).wkv, random_like(state, 3).wkv)
    assert not torch.allclose(random_like(state, 3).wkv, random_like(state, 4).wkv)
    with pytest.raises(ArgError, match="seed"):
        random_like(state, -1)


def test_a_head_of_low_rank_keeps_its_rank_and_zero_stays_zero():
    low = State(torch.einsum("v,k->vk", torch.arange(1.0, 6), torch.arange(1.0, 8))[None, None])
    assert int(torch.linalg.matrix_rank(random_like(low).wkv[0, 0], rtol=1e-5)) == 1
    assert not random_like(low * 0).wkv.any()


def test_transposed_turns_every_head_and_leaves_the_shifts():
    state = with_shifts(values=4, keys=4)
    turned = transposed(state)
    assert torch.equal(turned.wkv, state.wkv.transpose(2, 3))
    assert torch.equal(turned.att_shift, state.att_shift)
    assert torch.equal(transposed(turned).wkv, state.wkv)


def test_only_square_heads_can_be_transposed():
    with pytest.raises(StateOpError, match=r"V=5 K=7"):
        transposed(with_shifts())


def test_the_card_says_how_the_control_was_made():
    state = with_shifts(values=4, keys=4)
    assert random_like(state, 7).card.recipe == "random_like(文言文, seed=7)"
    assert transposed(state).card.recipe == "transposed(文言文)"
    assert transposed(random_like(state, 7)).card.parents == ("文言文",)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_with_nan_has_no_random_twin(value):
    wkv = with_shifts().wkv.clone()
    wkv[1, 0, 2, 3] = value
    with pytest.raises(NonFiniteError, match=r"random_like\('文言文'\): holds NaN"):
        random_like(State(wkv).named("文言文"))


def test_shuffled_keeps_all_heads_and_leaves_none_at_its_place():
    state = with_shifts()
    for seed in range(20):
        other = shuffled(state, seed)
        heads, moved = (s.wkv.flatten(0, 1).flatten(1) for s in (state, other))
        same = (heads[:, None] == moved[None]).all(-1)
        assert same.sum(0).tolist() == same.sum(1).tolist() == [1] * 6
        assert not same.diagonal().any()
        assert torch.equal(other.att_shift, state.att_shift)
    assert torch.equal(shuffled(state, 3).wkv, shuffled(state, 3).wkv)
    assert len({tuple(shuffled(state, seed).wkv[0, 0, 0].tolist()) for seed in range(20)}) > 3
    assert shuffled(state, 3).card.recipe == "shuffled(文言文, seed=3)"
    with pytest.raises(StateOpError, match="one head"):
        shuffled(State(torch.ones(1, 1, 2, 2)))
