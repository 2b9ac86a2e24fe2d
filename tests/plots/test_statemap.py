"""A map of states names its points, no name over another, and keeps distances as they are."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_map
from rwkvlab.plots.statemap import LINE, _spread


def table(points, explained=(0.5, 0.25)):
    found = pd.DataFrame(points, columns=["pc1", "pc2"]).assign(state=[f"state {i}" for i in range(len(points))])
    found.attrs["explained"] = explained
    return found


@pytest.fixture
def ax():
    figure = Figure(figsize=(7, 5.5))
    FigureCanvasAgg(figure)
    return figure.subplots()


def test_points_lie_where_they_are_and_the_axes_tell_what_they_explain(ax):
    assert plot_map(table([(0, 1), (2, 3)]), ax) is ax
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [(0, 1), (2, 3)])
    assert ax.get_xlabel() == "component 1 (state units, 50 % of the variance)"
    assert ax.get_ylabel() == "component 2 (state units, 25 % of the variance)"
    assert ax.get_aspect() == 1 and ax.get_legend() is None
    assert {text.get_text() for text in ax.texts} == {"state 0", "state 1"}


def test_names_do_not_cover_each_other_even_where_points_do(ax):
    points = np.random.default_rng(0).normal(0, 0.01, (12, 2)) + np.repeat([(0, 0), (10, 4)], 6, axis=0)
    plot_map(table(points), ax)
    ax.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) == 12
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 0 or down <= 0.15 * box.height


def test_names_are_moved_as_little_as_can_be():
    heights = np.array([0.0, 1.0, 50.0, 100.0, 101.0, 102.0])
    found = _spread(heights, LINE)
    np.testing.assert_allclose(found, [-4.5, 5.5, 50, 91, 101, 111])
    assert (np.diff(found) >= LINE - 1e-9).all()
    assert _spread(np.array([]), LINE).size == 0


def test_groups_have_colours_marks_and_a_legend(ax):
    plot_map(table([(0, 0), (1, 1), (2, 0)]).assign(group=["a", "b", "a"]), ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 1]
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 2


def test_of_many_states_none_is_named_and_their_number_is_told(ax):
    plot_map(table(np.random.default_rng(0).normal(size=(41, 2))), ax)
    assert not ax.texts and ax.get_title() == "41 states"


@pytest.mark.parametrize("points", [[(0, 0)], [(1, 1), (1, 1)], [(0, 0), (np.nan, 1)], [(np.nan, np.nan)]])
def test_a_map_of_hardly_anything_is_drawn_all_the_same(ax, points):
    plot_map(table(points, (np.nan, np.nan)), ax)
    ax.figure.canvas.draw()
    assert len(ax.texts) == sum(np.isfinite(point).all() for point in points)
    assert ax.get_xlabel() == "component 1 (state units)"


def test_columns_that_are_missing_are_named(ax):
    with pytest.raises(ArgError, match="plot_map: need columns state, pc1, pc2; 'pc2' is not among them"):
        plot_map(table([(0, 0)]).drop(columns="pc2"), ax)
