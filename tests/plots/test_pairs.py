import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes

from rwkvlab.errors import ArgError, MismatchError
from rwkvlab.plots import plot_diff, plot_pair
from rwkvlab.states.state import State


def state(name, seed, heads=3):
    return State(torch.randn(2, heads, 4, 6, generator=torch.Generator().manual_seed(seed))).named(name)


@pytest.fixture
def a():
    return state("sort", 0)


@pytest.fixture
def b():
    return state("reverse", 1)


def images(figure):
    return [ax.images[0] for ax in figure.findobj(Axes) if ax.images]


def bars(figure):
    return [ax for ax in figure.findobj(Axes) if hasattr(ax, "_colorbar")]


def test_a_pair_and_its_difference_have_one_scale_about_zero(a, b):
    figure = plot_pair(a, b, 1, 2)
    one, two, change = images(figure)
    np.testing.assert_array_equal(one.get_array(), a.wkv[1, 2])
    np.testing.assert_array_equal(two.get_array(), b.wkv[1, 2])
    np.testing.assert_allclose(change.get_array(), (b.wkv - a.wkv)[1, 2])
    low, high = one.get_clim()
    assert low == -high and one.get_clim() == two.get_clim() == change.get_clim()
    assert high >= float((b.wkv - a.wkv)[1, 2].abs().quantile(0.95))
    assert [bar.get_ylabel() for bar in bars(figure)] == ["state (state units)"]
    titles = [image.axes.get_title() for image in images(figure)]
    assert titles[0].startswith("sort\nlayer 1, head 2, norm ") and titles[1].startswith("reverse")
    assert f"norm {float((b.wkv - a.wkv)[1, 2].norm()):.3g}" in titles[2]


def test_a_small_difference_is_said_to_be_small_and_can_have_its_own_scale(a):
    near = a + 0.01 * state("other", 5)
    one, two, change = images(plot_pair(a, near, 0, 0))
    assert one.get_clim() == two.get_clim() == change.get_clim()
    assert "hardly seen on this scale" in change.axes.get_title()
    figure = plot_pair(a, near, 0, 0, one_scale=False)
    one, two, change = images(figure)
    assert one.get_clim() == two.get_clim() and change.get_clim()[1] < 0.1 * one.get_clim()[1]
    assert len(bars(figure)) == 2 and "hardly" not in change.axes.get_title()
    assert "the same" in images(plot_pair(a, a, 0, 0))[2].axes.get_title()


def test_where_states_differ_is_drawn_above_the_head_that_differs_most(a, b):
    wkv = a.wkv.clone()
    wkv[1, 0] += 3
    figure = plot_diff(a, a.replace(wkv=wkv).named("moved"))
    top = next(image for image in images(figure) if image.get_array().shape == (2, 3))
    assert "framed: layer 1, head 0" in top.axes.get_title()
    assert {patch.get_xy() for patch in top.axes.patches} == {(-0.5, 0.5)}
    assert any("layer 1, head 0, norm" in image.axes.get_title() for image in images(figure))


def test_a_table_chooses_the_head_by_its_own_column(a, b):
    table = pd.DataFrame([(layer, head) for layer in range(2) for head in range(3)], columns=["layer", "head"])
    table["frobenius"], table["cosine"] = [1.0, 2, 3, 4, 9, np.nan], [0.5, -0.9, 0.1, 0.2, 0.3, 0.4]
    table["relative"] = [1.0, 2, np.inf, 4, 9, 0]
    for value, place in ((None, "layer 1, head 1"), ("cosine", "layer 0, head 1"), ("relative", "layer 0, head 2")):
        titles = [image.axes.get_title() for image in images(plot_diff(a, b, table, value))]
        assert any(f"framed: {place}" in title for title in titles), value


def test_states_and_tables_that_do_not_belong_together_are_refused(a, b):
    with pytest.raises(MismatchError, match="shapes differ"):
        plot_pair(a, state("c", 0, heads=4), 0, 0)
    with pytest.raises(MismatchError, match="give the table of these states"):
        plot_diff(a, b, pd.DataFrame({"layer": [0], "head": [3], "norm": [1.0]}))
    with pytest.raises(ArgError, match="no head has a number"):
        plot_diff(a, b, pd.DataFrame({"layer": [0], "head": [0], "norm": [np.nan]}))
    for wrong in (None, "a.pth"):
        with pytest.raises(ArgError, match="b: need a State"):
            plot_pair(a, wrong, 0, 0)
    with pytest.raises(ArgError, match="layer"):
        plot_pair(a, b, 2, 0)
    with pytest.raises(ArgError, match="head"):
        plot_pair(a, b, 0, True)
