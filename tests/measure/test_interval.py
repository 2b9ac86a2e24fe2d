import numpy as np
import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.interval import interval, wilson


def test_shares_get_wilsons_interval():
    # Wilson 1927, as tabulated: 8 of 10 at 95 %
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval([1] * 8 + [0] * 2, outcomes=True) == wilson(8, 10)
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == 1


def test_the_interval_of_a_mean_holds_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        low, high = interval(rng.normal(2.0, 3.0, size=60), seed=trial, draws=400)
        held += low <= 2.0 <= high
    assert 180 <= held <= 198


def test_numbers_that_happen_to_be_zero_have_no_width():
    assert interval([0.0, 0.0, 0.0]) == (0.0, 0.0)


def test_seeds_that_differ_widen_it():
    rng = np.random.default_rng(0)
    examples = rng.normal(size=200)
    apart = np.stack([examples - 1, examples, examples + 1])
    same = np.stack([examples] * 3)
    width = [np.diff(interval(table))[0] for table in (apart, same)]
    assert width[0] > 2 * width[1]
    # the same examples under every seed stay one sample of examples, however many seeds there are
    assert width[1] == pytest.approx(np.diff(interval(examples))[0], rel=0.15)


def test_outcomes_that_are_all_right_under_every_seed_are_no_certainty():
    assert interval(np.ones((3, 20)), outcomes=True) == pytest.approx(wilson(20, 20))


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(10.0)
    assert interval(values) == interval(values) != interval(values, seed=1)


def test_what_has_no_interval_says_nan_and_what_is_no_sample_is_refused():
    assert np.isnan(interval([3.0])).all() and np.isnan(interval([1.0, np.nan])).all()
    with pytest.raises(ArgError, match="0 or 1"):
        interval([0.5, 1.0], outcomes=True)
    for bad in ([], np.zeros((2, 2, 2)), 1.0):
        with pytest.raises(ArgError, match="values"):
            interval(bad)
