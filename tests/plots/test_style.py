import math

import pytest

from rwkvlab.plots import style


def test_only_fonts_that_are_installed_are_named():
    from matplotlib.font_manager import fontManager

    assert set(style.families()) <= set(fontManager.get_font_names())
    assert style.families()[0] == "DejaVu Sans"


@pytest.mark.parametrize(
    ("values", "limit"), [([1, -3, 2], 3), ([0, 0], 1), ([], 1), ([math.nan, math.inf, -2], 2), ([0] * 999 + [5], 5)]
)
def test_a_limit_covers_the_finite_values_and_is_never_zero(values, limit):
    assert style.limit_of(values) == limit


@pytest.mark.parametrize(
    ("values", "extend"), [([0, 1], "neither"), ([-2, 1], "min"), ([0, 3], "max"), ([-2, 3, math.nan], "both")]
)
def test_the_bar_shows_where_values_go_on(values, extend):
    assert style.extend_of(values, -1, 1) == extend
