import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_layers, plot_set


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_chosen_set_stands_beside_random_sets_and_the_whole(ax):
    table = pd.DataFrame({"size": [2, 1], "layer": [1, 0], "head": [3, 2], "effect": [4.0, 3.0], "share": [0.8, 0.6]})
    table = table.assign(random=[1.0, 0.5], random_low=[0.2, 0.1], random_high=[2.0, 1.0])
    plot_set(table, ax=ax)
    chosen, random, whole = ax.lines
    np.testing.assert_array_equal(chosen.get_xydata(), [[1, 3], [2, 4]])
    np.testing.assert_array_equal(random.get_xydata(), [[1, 0.5], [2, 1]])
    np.testing.assert_allclose(whole.get_ydata(), 5.0)
    assert [text.get_text() for text in ax.texts] == ["L0 H2", "L1 H3"]
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == 0.1 and corners[:, 1].max() == 2.0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("heads in the set", "effect (nats of log-odds)")


def test_the_legend_of_a_set_hides_neither_the_band_nor_the_whole(ax):
    table = pd.DataFrame(
        {"size": [1, 2, 3], "effect": [11.0, 16, 17], "share": [0.6, 0.86, 0.92], "layer": 0, "head": 1}
    )
    table = table.assign(random=[2.4, 4.5, 6.6], random_low=[-0.1, 0.5, 1.5], random_high=[8.7, 12, 16.5])
    plot_set(table, ax=ax)
    place = ax.get_legend().get_window_extent()
    low = ax.transData.inverted().transform(place.min)[1]
    assert low > max(max(line.get_ydata()) for line in ax.lines)  # the highest is the whole
    assert place.x0 >= ax.bbox.x0 and place.y1 <= ax.bbox.y1 and ax.get_ylim()[1] < 40
    assert not any(place.overlaps(text.get_window_extent()) for text in ax.texts)


def test_a_set_without_shares_has_no_whole(ax):
    plot_set(pd.DataFrame({"size": [1], "effect": [3.0], "random": [0.5]}), ax=ax)
    assert len(ax.lines) == 2


def test_layers_are_points_with_their_intervals(ax):
    table = pd.DataFrame(
        {"layer": [0, 1], "effect": [1.0, -2.0], "low": [0.5, -3.0], "high": [2.0, -1.0], "share": 0.1}
    )
    plot_layers(table, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 1], [1, -2]])
    np.testing.assert_array_equal(ax.collections[0].get_segments(), [[[0, 0.5], [0, 2]], [[1, -3], [1, -1]]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer", "effect (nats of log-odds)") and ax.get_legend() is None


def test_the_interval_of_another_column_is_not_taken(ax):
    table = pd.DataFrame({"layer": [0], "effect": [1.0], "low": [0.5], "high": [2.0], "share": 0.1})
    assert not plot_layers(table, "share", ax=ax).collections


def test_parts_of_the_state_stand_side_by_side_by_name(ax):
    table = pd.DataFrame({"part": ["wkv", "att_shift", "ffn_shift"], "effect": [3.0, 0.1, 0.0]})
    plot_layers(table, ax=ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["wkv", "att_shift", "ffn_shift"]
    assert ax.lines[0].get_linestyle() == "None" and ax.get_xlabel() == "part of the state"


def test_a_table_of_heads_is_no_table_of_layers(ax):
    with pytest.raises(ArgError, match="plot_heads draws one number a head"):
        plot_layers(pd.DataFrame({"layer": [0, 0], "head": [0, 1], "effect": [1.0, 2.0]}), "effect", ax=ax)
