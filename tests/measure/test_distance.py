import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvlab.errors import ArgError, MismatchError
from rwkvlab.measure.distance import head_distance, mean_angle
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
    assert math.isnan(table.key_angle[0]) and math.isnan(table.value_angle[0])
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


def orthogonal(size, seed):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[
        0
    ]


def spanned(values, keys, sigma):
    """One head whose value directions are the columns of `values`, its key directions those of `keys`."""
    return State((values @ torch.diag(torch.tensor(sigma, dtype=torch.float64)) @ keys.mT)[None, None])


def test_the_angles_are_those_between_the_planted_directions_of_each_side():
    V, K = orthogonal(9, 0), orthogonal(7, 1)
    turn = {side: [math.radians(degrees) for degrees in some] for side, some in (("v", (10, 50)), ("k", (0, 24)))}

    def turned(basis, angles):
        return torch.stack(
            [math.cos(angle) * basis[:, at] + math.sin(angle) * basis[:, at + 2] for at, angle in enumerate(angles)], 1
        )

    a = spanned(V[:, :2], K[:, :2], [3.0, 2.0])
    b = spanned(turned(V, turn["v"]), turned(K, turn["k"]), [1.0, 5.0])
    row = head_distance(a, b, rank=2).iloc[0]
    assert row.value_angle == pytest.approx(30, abs=1e-4) and row.key_angle == pytest.approx(12, abs=1e-4)
    assert row["rank"] > 2


def test_only_the_strongest_directions_make_the_spaces():
    V, K = orthogonal(6, 2), orthogonal(6, 3)
    a = spanned(V[:, :3], K[:, :3], [4.0, 3.0, 0.5])
    b = spanned(V[:, [0, 1, 4]], K[:, [0, 1, 5]], [4.0, 3.0, 0.5])
    assert head_distance(a, b, rank=2).iloc[0][["key_angle", "value_angle"]].tolist() == pytest.approx([0, 0], abs=1e-4)
    assert head_distance(a, b, rank=3).iloc[0].key_angle == pytest.approx(30, abs=1e-4)  # one of three at 90
    assert head_distance(a, b, rank=2).iloc[0]["rank"] == pytest.approx(2, rel=1e-4)  # 0.5 goes, 0.5 comes
    short = head_distance(a, b, rank=4)
    assert short[["key_angle", "value_angle"]].isna().all(axis=None)  # there are three
    assert short["rank"].notna().all()


def test_a_rank_above_the_size_of_a_head_takes_all_directions():
    table, other = head_distance(state(0), state(1), rank=4), head_distance(state(0), state(1), rank=1000)
    assert table.equals(other)
    assert table.value_angle.to_numpy() == pytest.approx(0, abs=1e-4)  # all four value channels of both
    assert (table.key_angle > 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-2.0, 1e-12, 1e10]), st.sampled_from([1, 2, 3]))
def test_what_should_not_know_order_scale_or_side_does_not(seed, factor, rank):
    a, b = state(seed, values=5, keys=6), state(seed + 1, values=5, keys=6)
    table, back = head_distance(a, b, rank=rank), head_distance(b, a, rank=rank)
    same = ["frobenius", "cosine", "key_angle", "value_angle", "rank"]
    assert back[same].to_numpy() == pytest.approx(table[same].to_numpy(), rel=1e-6)
    angles = ["key_angle", "value_angle"]
    scaled = head_distance(a, b * factor, rank=rank)
    assert scaled[angles].to_numpy() == pytest.approx(table[angles].to_numpy(), rel=1e-3)
    turned = head_distance(*(State(one.wkv.mT) for one in (a, b)), rank=rank)
    assert turned[angles[::-1]].to_numpy() == pytest.approx(table[angles].to_numpy(), rel=1e-6)
    assert table[angles].stack().between(0, 90).all()


def test_permuted_heads_and_layers_give_permuted_rows():
    a, b = state(0), state(1)
    order = torch.tensor([2, 0, 1])
    table = head_distance(a, b).drop(columns=["layer", "head"]).to_numpy().reshape(2, 3, -1)
    moved = head_distance(*(State(one.wkv.flip(0)[:, order]) for one in (a, b)))
    assert moved.drop(columns=["layer", "head"]).to_numpy().reshape(2, 3, -1) == pytest.approx(table[::-1][:, order])


@pytest.mark.parametrize("shape", [(1, 4, 4, 5), (1, 2, 9, 4), (1, 4, 64, 64)])
def test_a_state_lies_at_no_angle_to_itself(shape):
    a = State(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    for rank in (1, 3, 4):
        for b in (a, a * 2):
            table = head_distance(a, b, rank=rank)
            assert (table[["key_angle", "value_angle"]] == 0).all(axis=None)


@pytest.mark.parametrize("degrees", [1e-9, 1e-5, 1, 44.999, 45.001, 89, 90 - 1e-9])
def test_small_angles_are_as_exact_as_large_ones(degrees):
    """Planted, among two others of 0 and 60, in a space of nine."""
    basis = orthogonal(9, 0)[None]
    angles = torch.tensor([60.0, 0.0, degrees], dtype=torch.float64).deg2rad()
    turned = angles.cos() * basis[..., :3] + angles.sin() * basis[..., 3:6]
    turned = turned @ orthogonal(3, 1)  # another basis of the same space
    assert float(mean_angle(basis[..., :3], turned)) * 3 - 60 == pytest.approx(degrees, rel=1e-9, abs=2e-13)


def test_random_spaces_lie_as_far_apart_as_is_written():
    generator = torch.Generator().manual_seed(0)

    def mean(rank, size):
        one, two = (torch.linalg.qr(torch.randn(4000, size, rank, generator=generator).double())[0] for _ in "ab")
        return float(mean_angle(one, two).mean())

    assert [round(mean(*case)) for case in ((4, 64), (1, 64), (8, 64), (4, 16))] == [78, 84, 72, 63]


def test_a_floor_is_the_mean_over_states_set_against_the_nearer_of_both_and_over_pairs():
    a, b, c, d, e = (state(seed) for seed in range(5))
    c, near_a = b + 0.1 * c, a + 0.1 * c
    names = [*head_distance(a, b).columns[2:]]
    assert names == ["frobenius", "relative", "cosine", "key_angle", "value_angle", "rank"]
    table = head_distance(a, b, floor=[c, (d, e)])
    assert [*table.columns[8:]] == [*(f"{name}_floor" for name in names), "beyond"]
    assert table.iloc[:, :8].equals(head_distance(a, b))
    wanted = (head_distance(b, c)[names] + head_distance(d, e)[names]) / 2
    assert table[[f"{name}_floor" for name in names]].to_numpy() == pytest.approx(wanted.to_numpy())
    assert table["beyond"].to_numpy() == pytest.approx((table["frobenius"] / wanted["frobenius"]).to_numpy())
    near = head_distance(a, b, floor=[near_a])
    assert near["frobenius_floor"].to_numpy() == pytest.approx(head_distance(a, near_a)["frobenius"].to_numpy())
    still = head_distance(a, b, floor=[b])
    assert (still["beyond"] == math.inf).all() and (still["frobenius_floor"] == 0).all()
    assert head_distance(b, b, floor=[b])["beyond"].isna().all()


def test_a_lone_state_of_the_floor_is_set_against_both_unless_one_is_twice_as_far():
    a = state(0)
    gap = state(1).wkv
    b = a.replace(wkv=a.wkv + gap)
    for at, ends in ((0.2, [a]), (0.32, [a]), (0.35, [a, b]), (0.6, [b, a]), (0.7, [b]), (1.2, [b])):
        one = a.replace(wkv=a.wkv + at * gap)
        wanted = sum(head_distance(end, one)["frobenius"] for end in ends) / len(ends)
        got = head_distance(a, b, floor=[one])["frobenius_floor"]
        assert got.to_numpy() == pytest.approx(wanted.to_numpy(), rel=1e-4), at


def test_where_all_are_seeds_of_one_task_they_lie_no_further_apart_than_seeds():
    """Also where seeds differ in a few directions only, so that some come out nearer to one of the two."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(40):
        directions = torch.randn(3, 1, 4, 4, 5, generator=torch.Generator().manual_seed(7))
        task = torch.randn(1, 4, 4, 5, generator=generator)
        seeds = [
            State(task + torch.einsum("n,nlhvk->lhvk", torch.randn(3, generator=generator), directions))
            for _ in range(10)
        ]
        found.append(head_distance(*seeds[:2], floor=seeds[2:])["beyond"].mean())
    assert 0.9 < sum(found) / len(found) < 1.15


@pytest.mark.parametrize("floor", [[None], [(1, 2)], "ab", 5, [(1,)], None])
def test_a_floor_is_made_of_states(floor):
    with pytest.raises(ArgError, match="floor"):
        head_distance(state(), state(), floor=floor)


def test_a_floor_of_another_model_is_refused():
    with pytest.raises(MismatchError, match=r"floor\[1\]"):
        head_distance(state(), state(), floor=[state(), state(heads=2)])


@pytest.mark.parametrize("rank", [0, -1, 1.5, None, "4", True])
def test_a_rank_is_a_whole_number_from_one(rank):
    with pytest.raises(ArgError, match="rank: "):
        head_distance(state(), state(), rank=rank)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_stay_in_their_head(bad):
    a, b = state(0), state(1)
    wkv = b.wkv.clone()
    wkv[1, 0, 2, 3] = bad
    for table in (head_distance(a, b.replace(wkv=wkv)), head_distance(b.replace(wkv=wkv), a)):
        assert table.iloc[3, 2:].isna().all()
        assert table.drop(3).notna().all(axis=None)


def test_a_head_may_have_fewer_directions_than_are_asked_for():
    a, b = state(0, values=2, keys=3), state(1, values=2, keys=3)
    assert head_distance(a, b).equals(head_distance(a, b, rank=2))


@pytest.mark.long
def test_two_large_states_take_seconds():
    a, b = (State(torch.randn(32, 64, 64, 64)) for _ in "ab")
    begun = time.monotonic()
    head_distance(a, b)
    assert time.monotonic() - begun < 20  # 4.3 s on one quiet core
