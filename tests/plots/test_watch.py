import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_trajectory, plot_writes


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def ways():
    table = pd.DataFrame({"text": ["a"] * 3 + ["b"] * 2, "token": [16, 0, 8, 0, 8], "pc1": [4.0, 0, 2, 1, 1]})
    table["pc2"] = [5.0, 1, 3, 0, 2]
    table.attrs["explained"] = (0.634, 0.2)
    return table


def test_each_text_is_a_way_from_a_ring_to_a_square(ax, ways):
    plot_trajectory(ways, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 1], [2, 3], [4, 5]])  # in the order of the tokens
    ring, square = ax.lines[2], ax.lines[3]
    assert ring.get_marker() == "o" and ring.get_markerfacecolor() == "none" and square.get_marker() == "s"
    np.testing.assert_array_equal(ring.get_xydata(), [[0, 1]])
    np.testing.assert_array_equal(square.get_xydata(), [[4, 5]])
    arrows = [text for text in ax.texts if text.arrow_patch is not None]
    assert [(arrow.xyann, arrow.xy) for arrow in arrows] == [((0, 1), (2, 3)), ((1, 0), (1, 2))]
    assert ax.get_xlabel() == "component 1 (state units, 63 % of the variance)"
    assert ax.get_ylabel() == "component 2 (state units, 20 % of the variance)"


def test_a_way_of_one_place_or_unknown_shares_can_be_drawn(ax, ways):
    one = ways.iloc[:1]
    one.attrs["explained"] = (np.nan, np.nan)
    plot_trajectory(one, ax=ax)
    assert ax.get_xlabel() == "component 1 (state units)" and ax.get_legend() is None


@pytest.fixture
def writes():
    table = pd.DataFrame({"rank": [1, 2, 3], "token": [7, -1, 0], "piece": [" the", "the initial state", "\n"]})
    return table.assign(share=[0.6, 0.5, -0.1], norm=[3.0, 2.0, 1.0], surprise=[4.0, np.nan, 0.0])


def test_the_largest_write_is_the_uppermost_bar_with_its_piece(ax, writes):
    plot_writes(writes, ax=ax)
    assert [bar.get_width() for bar in ax.patches] == [0.6, 0.5, -0.1]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["7 ␣the", "initial state", "0 ⏎"]
    assert ax.yaxis_inverted() and "share of the final state" in ax.get_xlabel()
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert colours[0] != colours[2] and colours[1][3] == 0 and ax.patches[1].get_hatch()
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "surprise (nats)\nhatched: not known" and bar.get_ylim() == (0, 4)


def test_only_the_first_are_drawn_and_it_says_so(ax, writes):
    plot_writes(writes, "norm", ax=ax, top=2)
    assert len(ax.patches) == 2 and ax.get_title() == "the first 2 of 3" and "state units" in ax.get_xlabel()
    with pytest.raises(ArgError, match="top"):
        plot_writes(writes, top=0)


def test_writes_without_a_surprise_have_no_colours(ax, writes):
    plot_writes(writes.drop(columns="surprise"), ax=ax)
    assert len(ax.figure.axes) == 1 and len({bar.get_facecolor() for bar in ax.patches}) == 1
