import time

import numpy as np
import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.interval import interval, intervals, wilson


def test_shares_get_wilsons_interval():
    # Wilson 1927, as tabulated: 8 of 10 at 95 %
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval([1] * 8 + [0] * 2, outcomes=True) == wilson(8, 10)
    for of in range(1, 60):
        assert wilson(0, of)[0] == 0 and wilson(of, of)[1] == 1


def test_one_row_of_numbers_gets_the_t_interval():
    # t of 4 degrees of freedom is 2.776 at 97.5 %, of 2 it is 9.925 at 99.5 %
    half = 2.7764 * np.std([1, 2, 4, 4, 9], ddof=1) / 5**0.5
    assert interval([1, 2, 4, 4, 9]) == pytest.approx((4 - half, 4 + half), abs=1e-3)
    assert interval([0, 1, 2], level=0.99) == pytest.approx((1 - 9.9248 / 3**0.5, 1 + 9.9248 / 3**0.5), abs=1e-3)


@pytest.mark.parametrize("examples", [3, 10, 60])
def test_the_interval_of_a_mean_holds_the_mean_about_as_often_as_it_says(examples):
    rng = np.random.default_rng(1)
    ends = np.array([interval(rng.normal(2.0, 3.0, size=examples)) for _ in range(1000)])
    assert 930 <= ((ends[:, 0] <= 2) & (ends[:, 1] >= 2)).sum() <= 970


@pytest.mark.parametrize("examples", [3, 10, 50])
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_three_seeds_hold_the_mean_over_seeds_and_examples(examples, spread):
    rng, held = np.random.default_rng(2), 0
    for _ in range(1000):
        table = rng.normal(size=(3, examples)) + spread * rng.normal(size=(3, 1)) + rng.normal(size=(1, examples))
        low, high = interval(table)
        held += low <= 0 <= high
    assert held >= 915


def test_outcomes_of_three_seeds_hold_their_share():
    rng, held = np.random.default_rng(3), 0
    for _ in range(1000):
        low, high = interval(rng.random((3, 50)) < rng.beta(2, 2, size=(3, 1)), outcomes=True)
        assert 0 <= low <= high <= 1
        held += low <= 0.5 <= high
    assert held >= 920


def test_two_rows_and_two_columns_by_hand():
    # rows differ by 2, columns by 4, nothing is left over: v_s = 1, v_n = 4, v = 5, 25 / 17 degrees of freedom
    low, high = interval([[0.0, 4.0], [2.0, 6.0]])
    from scipy.stats import t

    half = t.ppf(0.975, 25 / 17) * 5**0.5
    assert (low, high) == pytest.approx((3 - half, 3 + half))


def test_numbers_that_happen_to_be_zero_have_no_width():
    assert interval([0.0, 0.0, 0.0]) == (0.0, 0.0)
    assert interval(np.zeros((3, 4))) == (0.0, 0.0)


def test_seeds_that_differ_widen_it():
    rng = np.random.default_rng(0)
    examples = rng.normal(size=200)
    apart = np.stack([examples - 1, examples, examples + 1])
    same = np.stack([examples] * 3)
    width = [np.diff(interval(table))[0] for table in (apart, same)]
    assert width[0] > 2 * width[1]
    # the same examples under every seed stay one sample of examples, however many seeds there are
    assert width[1] == pytest.approx(np.diff(interval(examples))[0], rel=1e-6)


def test_outcomes_that_are_all_right_under_every_seed_are_no_certainty():
    assert interval(np.ones((3, 20)), outcomes=True) == pytest.approx(wilson(20, 20))


def test_the_order_of_examples_and_seeds_changes_nothing():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 11))
    turned = values[rng.permutation(4)][:, rng.permutation(11)]
    assert interval(turned) == pytest.approx(interval(values), rel=1e-12)


def test_many_rows_at_once_are_each_as_alone():
    values = np.random.default_rng(0).normal(size=(5, 20))
    assert np.stack(intervals(values), axis=1) == pytest.approx(np.array([interval(row) for row in values]))
    assert [x.tolist() for x in intervals(np.zeros((1, 9)))] == [[0], [0]]
    assert np.isnan(intervals(np.ones((3, 1)))).all()
    values[2, 3] = np.nan
    assert np.isnan(np.stack(intervals(values))).sum(axis=0).tolist() == [0, 0, 2, 0, 0]


def test_a_million_values_take_no_time():
    values = np.random.default_rng(0).normal(size=10**6)
    start = time.perf_counter()
    interval(values)
    assert time.perf_counter() - start < 2


def test_what_has_no_interval_says_nan_and_what_is_no_sample_is_refused():
    assert np.isnan(interval([3.0])).all() and np.isnan(interval([1.0, np.nan])).all()
    assert np.isnan(interval([1e308, 1e308])).all()
    assert interval([1e150, 3e150])[1] > 3e150  # squares of squares would overflow
    with pytest.raises(ArgError, match="0 or 1"):
        interval([0.5, 1.0], outcomes=True)
    for bad in ([], np.zeros((2, 2, 2)), 1.0, ["a"], [[1.0], [1.0, 2.0]], {"a": 1}, None, [1j]):
        with pytest.raises(ArgError, match="values"):
            interval(bad)
