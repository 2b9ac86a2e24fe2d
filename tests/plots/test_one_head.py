import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from rwkvlab.errors import ArgError
from rwkvlab.plots.one_head import plot_one_head
from rwkvlab.plots.style import contrast, luminance

VALUES = pd.DataFrame({"index": [1, 2, 3, 1, 2, 3], "value": [4.0, 1.0, 1e-12, 2.0, 1.0, 0.5], "state": list("aaabbb")})
LEFT = pd.DataFrame({"token": [0, 1, 2], "share": [1.0, 0.6, 0.2]})


def test_each_state_is_a_line_and_rounding_is_left_out():
    figure = plot_one_head(VALUES, title="layer 1, head 2")
    (ax,) = figure.axes
    one, two = ax.get_lines()
    assert np.nanmin(one.get_ydata()) == 1.0 and list(two.get_ydata()) == [2.0, 1.0, 0.5]
    assert ax.get_yscale() == "log" and ax.get_title() == "layer 1, head 2: singular values"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_what_is_left_stands_beside_it_with_half_marked():
    ax = plot_one_head(VALUES, LEFT).axes[1]
    curve, half = ax.get_lines()
    assert list(curve.get_ydata()) == [1.0, 0.6, 0.2] and set(half.get_ydata()) == {0.5}
    assert ax.get_ylim()[0] == 0 and ax.get_xlabel() == "tokens read"


@pytest.mark.parametrize("dark", [False, True])
def test_all_words_and_lines_are_read_on_the_page(dark):
    figure = plot_one_head(VALUES, LEFT, dark=dark)
    page = luminance("#111111" if dark else "#ffffff")[0]
    for ax in figure.axes:
        words = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
        for colour in [text.get_color() for text in words] + [line.get_color() for line in ax.get_lines()]:
            assert contrast(luminance(colour)[0], page) >= 3
    assert to_rgba(figure.get_facecolor())[3] == 0, "the page is seen through it"


def test_a_head_of_zeros_and_of_nan_is_drawn():
    for value in (0.0, np.nan):
        figure = plot_one_head(pd.DataFrame({"index": [1, 2], "value": [value, value]}))
        assert figure.axes[0].get_title() == "all singular values are zero" if value == 0 else True
        figure.canvas.draw()


def test_missing_columns_are_told():
    with pytest.raises(ArgError, match="plot_one_head: values: need columns index, value"):
        plot_one_head(LEFT)
    with pytest.raises(ArgError, match="plot_one_head: left"):
        plot_one_head(VALUES, VALUES)
