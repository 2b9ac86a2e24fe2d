import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_spectrum


@pytest.fixture
def table():
    values = {(0, 0): [8.0, 4.0, 0.0], (0, 1): [4.0, 2.0, 1.0], (1, 0): [2.0, 1.0, 0.5]}
    rows = [(*place, at, x) for place, xs in values.items() for at, x in enumerate(xs, 1)]
    return pd.DataFrame(rows, columns=["layer", "head", "index", "value"])


def test_every_head_is_a_line_and_their_median_is_thick(table):
    ax = plot_spectrum(table, ax=Figure().subplots())
    lines = ax.collections[0].get_segments()
    assert len(lines) == 3
    np.testing.assert_array_equal(lines[1], [[1, 4], [2, 2], [3, 1]])
    (median,) = ax.lines
    np.testing.assert_array_equal(
        median.get_xydata(), [[1, 4], [2, 2], [3, 0.75]]
    )  # a zero has no place on a log scale
    assert ax.get_yscale() == "log" and median.get_linewidth() > 2 * ax.collections[0].get_linewidth()[0]
    assert ax.get_ylabel() == "singular value (state units)" and "index" in ax.get_xlabel()


def test_states_have_their_own_colours_and_lines(table):
    both = pd.concat([table.assign(state="sort"), table.assign(state="reverse", value=table["value"] * 2)])
    ax = plot_spectrum(both, ax=Figure().subplots())
    one, two = ax.lines
    assert one.get_color() != two.get_color() and one.get_linestyle() != two.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sort: median", "reverse: median"]
    np.testing.assert_allclose(two.get_ydata(), 2 * one.get_ydata())


def test_shares_are_drawn_on_a_plain_scale(table):
    ax = plot_spectrum(table.rename(columns={"value": "energy"}), "energy", ax=Figure().subplots())
    assert ax.get_yscale() == "linear" and "share" in ax.get_ylabel()


def test_a_state_of_zeros_says_so(table):
    ax = plot_spectrum(table.assign(value=0.0), ax=Figure().subplots())
    assert ax.get_title() == "all singular values are zero"


def test_two_states_without_a_name_are_not_mixed(table):
    with pytest.raises(ArgError, match="several rows for index 1, layer 0, head 0"):
        plot_spectrum(pd.concat([table, table]), ax=Figure().subplots())
