import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_influence, plot_over_time, plot_surprise
from rwkvlab.plots.lines import MANY


def heads(layers, per_layer, tokens=(0, 8, 16)):
    places = [(token, layer, head) for token in tokens for layer in range(layers) for head in range(per_layer)]
    table = pd.DataFrame(places, columns=["token", "layer", "head"])
    return table.assign(norm=table["layer"] + 0.1 * table["head"] + table["token"], share=0.5)


def total(starts=("state", "random, same spectrum"), count=200):
    parts = [
        pd.DataFrame({"token": range(1, count), "start": start, "kl": kl + 1.0}) for kl, start in enumerate(starts)
    ]
    return pd.concat(parts, ignore_index=True).assign(surprise=2.0, surprise_zero=3.0)


def test_every_head_is_a_line_in_the_colour_of_its_layer():
    ax = plot_over_time(heads(2, 3), ax=Figure().subplots())
    assert [len(lines.get_segments()) for lines in ax.collections] == [3, 3]
    np.testing.assert_allclose(ax.collections[1].get_segments()[2], [[0, 1.2], [8, 9.2], [16, 17.2]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer 0", "layer 1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tokens read", "Frobenius norm (state units)")


def legend_and_lines(ax):
    place = ax.get_legend().get_window_extent()
    paths = [ax.transData.transform_path(path) for lines in ax.collections for path in lines.get_paths()]
    return place, [path for path in paths if path.intersects_bbox(place)]


@pytest.mark.parametrize(("sign", "offset"), [(1, 0), (-1, 0), (1, 30), (-1, 30)])
def test_the_legend_stands_in_the_corner_without_lines(sign, offset):
    table = heads(2, 3).assign(norm=lambda t: offset * (t["layer"] + 1) + sign * (t["token"] + 0.1 * t["head"]))
    ax = plot_over_time(table, ax=Figure().subplots())
    place, hidden = legend_and_lines(ax)
    assert not hidden and ax.bbox.containsx(place.x0) and ax.bbox.containsy(place.y1)


@pytest.mark.parametrize("size", [(6.4, 4.8), (3, 2.5)])
def test_the_top_is_raised_for_the_legend_where_lines_are_in_every_corner(size):
    table = heads(6, 8, range(20)).assign(norm=lambda t: (t["head"] + t["token"] + t["layer"]) % 8)
    ax = plot_over_time(table, ax=Figure(figsize=size).subplots())
    place, hidden = legend_and_lines(ax)
    assert not hidden and 7 < ax.transData.inverted().transform(place.min)[1] < ax.get_ylim()[1] < 20
    assert ax.get_ylim()[0] < 0 and len(ax.get_legend().get_texts()) == 6


def test_the_legend_of_influence_hides_no_line_on_a_log_scale_either():
    table = heads(2, 3, range(0, 40, 4)).assign(share=lambda t: 0.99 ** (t["token"] * 9 ** t["head"]))
    for log in (False, True):
        left = plot_influence(table, total(), log=log).axes[0]
        assert not legend_and_lines(left)[1]


def test_the_order_of_rows_does_not_matter():
    table = heads(2, 3)
    mixed = table.sample(frac=1, random_state=0)
    one, two = (plot_over_time(x, ax=Figure().subplots()).collections[0].get_segments() for x in (table, mixed))
    np.testing.assert_array_equal(one, two)


def test_many_layers_have_a_bar_instead_of_a_legend_and_many_heads_a_median():
    ax = plot_over_time(heads(12, 12), ax=Figure().subplots())
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "layer" and MANY < 12 * 12
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["median of the heads"]
    colours = {tuple(lines.get_color()[0][:3]) for lines in ax.collections}
    assert len(colours) == 12


def test_several_texts_in_one_table_are_not_mixed():
    with pytest.raises(ArgError, match="several rows for token 0, layer 0, head 0"):
        plot_over_time(pd.concat([heads(1, 1), heads(1, 1)]), ax=Figure().subplots())
    with pytest.raises(ArgError, match="column 'layer': need whole numbers"):
        plot_over_time(heads(1, 1).assign(layer=-1), ax=Figure().subplots())


def test_a_line_is_the_mean_of_a_window_and_says_so():
    table = pd.DataFrame({"token": range(1, 8), "kl": [0.0, 0, 3, 0, 0, 0, 0]})
    ax = plot_surprise(table, "kl", ax=Figure().subplots(), window=3)
    points, line = ax.lines
    np.testing.assert_array_equal(points.get_ydata(), table["kl"])
    np.testing.assert_allclose(line.get_ydata(), [0, 1, 1, 1, 0, 0, 0])
    assert "mean of 3 tokens" in ax.get_xlabel() and ax.get_ylabel() == "KL (nats a token)"
    (line,) = plot_surprise(table, "kl", ax=Figure().subplots(), window=1).lines
    np.testing.assert_array_equal(line.get_ydata(), table["kl"])


def test_each_start_has_its_line_and_the_zero_start_one_too():
    ax = plot_surprise(total(), ax=Figure().subplots())
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said == ["state", "random, same spectrum", "zero"]
    assert [set(line.get_ydata()) for line in ax.lines[1::2]] == [{2.0}, {2.0}, {3.0}]


def test_influence_shows_what_is_left_beside_what_it_does():
    figure = plot_influence(heads(2, 2), total())
    left, right = figure.axes
    assert left.get_ylabel().endswith("(share of its norm)") and right.get_ylabel() == "KL to the zero start (nats)"
    half = next(line for line in left.lines if set(line.get_ydata()) == {0.5} and line.get_linestyle() == ":")
    assert half is not None and "half" in [text.get_text() for text in left.texts]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["state", "random, same spectrum"]
    assert left.get_ylim()[0] == 0 and right.get_ylim()[0] == 0


def test_influence_takes_its_result_as_one_and_a_log_scale_stays_readable():
    class Result:
        direct, total = heads(1, 2).assign(share=lambda table: 10.0 ** -(4.0 * table["token"])), total()

    left, right = plot_influence(Result(), log=True).axes
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.get_ylim()[0] > 1e-8  # and not the 1e-64 of the smallest


def test_what_is_missing_is_named_with_its_table():
    with pytest.raises(ArgError, match="plot_influence: direct: need a DataFrame"):
        plot_influence(None)
    with pytest.raises(ArgError, match="plot_influence: total: need a DataFrame"):
        plot_influence(heads(1, 1))
    with pytest.raises(ArgError, match="'kl' is not among"):
        plot_influence(heads(1, 1), total().drop(columns="kl"))
    with pytest.raises(ArgError, match="window"):
        plot_surprise(total(), ax=Figure().subplots(), window=0)
