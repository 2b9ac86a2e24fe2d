import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_head, plot_heads
from rwkvlab.states.state import State


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def state():
    scale = torch.arange(1.0, 7).reshape(2, 3, 1, 1)
    return State(torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * scale).named("sort")


def bar_label(ax):
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    return bar.get_ylabel()


def test_a_state_is_drawn_as_the_norm_of_every_head(ax, state):
    assert plot_heads(state, ax=ax) is ax
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), state.wkv.flatten(2).norm(dim=-1), rtol=1e-6)
    assert image.get_clim() == (0, pytest.approx(float(image.get_array().max())))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("head", "layer", "sort")
    assert bar_label(ax) == "Frobenius norm (state units)"


def test_a_column_of_a_table_is_drawn_where_its_heads_are(ax):
    table = pd.DataFrame({"layer": [1, 0, 1], "head": [2, 0, 0], "effect": [3.0, -4.0, math.inf], "other": 0.0})
    plot_heads(table, "effect", ax=ax)
    (image,) = ax.images
    grid = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(grid, [[-4, np.nan, np.nan], [np.nan, np.nan, 3]])
    assert bar_label(ax) == "effect (nats of log-odds)\ncrossed: infinite\nhatched: no number"


def test_numbers_with_a_sign_have_zero_in_the_middle(ax):
    table = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "effect": [3.0, -1.0], "cosine": [0.2, 0.9]})
    plot_heads(table, ax=ax)
    assert ax.images[0].get_clim() == (-3, 3)
    plot_heads(table, "cosine", ax=ax)
    assert ax.images[1].get_clim() == (-0.9, 0.9)


def test_one_head_is_drawn_about_zero_values_down_keys_across(ax, state):
    plot_head(state, 1, 2, ax=ax)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), state.wkv[1, 2])
    low, high = image.get_clim()
    assert low == -high and high == pytest.approx(float(state.wkv[1, 2].abs().max()))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key channel", "value channel")
    assert ax.get_title() == "sort\nlayer 1, head 2" and bar_label(ax) == "state (state units)"


def test_a_few_extreme_entries_do_not_set_the_colours(ax):
    wkv = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    wkv[0, 0, 3, 5] = 1e6
    plot_head(State(wkv), 0, 0, ax=ax)
    assert ax.images[0].get_clim()[1] < 10
    assert ax.images[0].colorbar.extend == "both"  # the outermost half per cent lie on both sides


def test_a_zero_state_can_be_drawn(ax):
    plot_head(State(torch.zeros(1, 1, 2, 2)), 0, 0, ax=ax)
    assert ax.images[0].get_clim() == (-1, 1)
    plot_heads(State(torch.zeros(1, 1, 2, 2)), ax=ax)


def test_without_axes_the_current_ones_of_pyplot_are_used(state):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    figure, (_, second) = pyplot.subplots(1, 2)
    assert plot_heads(state) is second
    pyplot.close(figure)


def test_names_are_text_not_formulas_and_letters_without_a_font_are_shown_by_code(ax, state):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plot_heads(state.named("$\\frac{1}$ \x1b[31m \U0001e900"), ax=ax)
        ax.figure.canvas.draw()
    title = ax.get_title()
    assert "\x1b" not in title and "\\U0001e900" in title.replace("\\u1e900", "\\U0001e900")
    assert "\\$" in title
    assert [w for w in caught if "apt install" in str(w.message)]
    assert not [w for w in caught if "Glyph" in str(w.message)]


def test_mistakes_are_named(ax, state):
    with pytest.raises(ArgError, match="layer"):
        plot_head(state, 2, 0, ax=ax)
    with pytest.raises(ArgError, match="head"):
        plot_head(state, 0, 3, ax=ax)
    with pytest.raises(ArgError, match="'effect' is not among"):
        plot_heads(pd.DataFrame({"layer": [0], "head": [0], "x": [1.0]}), "effect", ax=ax)
    with pytest.raises(ArgError, match="need a State or a DataFrame"):
        plot_heads([1, 2], ax=ax)


TABLE = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1]})
UNITS = {
    **{"norm": "(state units)", "largest": "(state units)", "stable_rank": "(directions)"},
    **{"effective_rank": "(directions)", "energy_1": "(0 to 1)", "energy_16": "(0 to 1)", "frobenius": "(state units)"},
    **{"relative": "norm)", "cosine": "(-1 to 1)", "key_angle": "(degrees)", "value_angle": "(degrees)"},
    **{"rank": "(directions)", "readout": "receptance)", "beyond": "floor)", "half_life": "(tokens)"},
    **{"effect": "(nats of log-odds)", "reverse": "(nats of log-odds)", "low": "(nats of log-odds)"},
    **{"share": "(1: all of it)", "reverse_share": "(1: all of it)", "cosine_floor": "(-1 to 1)"},
    **{"key_angle_floor": "(degrees)", "readout_floor": "receptance)"},
}


@pytest.mark.parametrize("value", UNITS)
def test_every_column_of_the_measures_has_its_unit(ax, value):
    plot_heads(TABLE.assign(**{value: [0.1, 0.2, 0.3, 0.4]}), ax=ax)
    said = bar_label(ax)
    assert said.replace("\n", " ").endswith(UNITS[value]) and max(map(len, said.split("\n"))) < 45


@pytest.mark.parametrize("value", ["cosine", "effect", "reverse", "share", "reverse_share", "low", "high"])
def test_what_has_a_sign_is_drawn_about_zero_even_where_all_are_positive(ax, value):
    plot_heads(TABLE.assign(**{value: [0.1, 0.2, 0.3, 0.4]}), ax=ax)
    assert ax.images[0].get_clim() == (-0.4, 0.4)


def test_two_maps_can_share_one_scale(ax, state):
    plot_heads(TABLE.assign(effect=[1.0, 2, 3, 4]), ax=ax, limit=10)
    plot_heads(TABLE.assign(norm=[1.0, 2, 3, 40]), ax=ax, limit=10)
    plot_head(state, 0, 0, ax=ax, limit=10)
    assert [image.get_clim() for image in ax.images] == [(-10, 10), (0, 10), (-10, 10)]
    assert [image.colorbar.extend for image in ax.images] == ["neither", "max", "neither"]
    for wrong in (0, -1, math.nan, math.inf, "1"):
        with pytest.raises(ArgError, match="limit"):
            plot_heads(state, ax=ax, limit=wrong)


def test_a_half_life_beyond_the_text_is_crossed_in_the_end_colour(ax):
    plot_heads(TABLE.assign(half_life=[3.0, math.inf, math.nan, 9.0]), ax=ax)
    said = bar_label(ax)
    assert said == "half-life (tokens)\ncrossed: infinite (not within the text)\nhatched: no number"
    crossed, hatched = ax.collections
    assert [path.get_extents().bounds for path in crossed.get_paths()] == [(0.5, -0.5, 1, 1)]
    np.testing.assert_allclose(crossed.get_facecolor()[0], ax.images[0].cmap(1.0))
    assert [path.get_extents().bounds for path in hatched.get_paths()] == [(-0.5, 0.5, 1, 1)]
    assert crossed.get_hatch() != hatched.get_hatch() and not len(hatched.get_facecolor())


def test_heads_with_several_rows_are_not_averaged(ax):
    both = pd.concat([TABLE.assign(state="a", norm=1.0), TABLE.assign(state="b", norm=3.0)])
    with pytest.raises(ArgError, match=r"several rows for layer 0, head 0; choose one, such as data\[data\['state'\]"):
        plot_heads(both, "norm", ax=ax)
    plot_heads(both[both["state"] == "b"], ax=ax)
    assert float(ax.images[0].get_array().max()) == 3


@pytest.mark.parametrize("place", [-1, 0.5, math.nan, math.inf, 1e9])
def test_layers_and_heads_are_whole_numbers_that_fit(ax, place):
    with pytest.raises(ArgError, match="column 'layer': need whole numbers from 0 to 4095"):
        plot_heads(TABLE.assign(layer=[0, 0, 1, place], norm=1.0), ax=ax)


def test_a_column_that_is_there_twice_is_refused(ax):
    twice = pd.DataFrame([[0, 0, 1.0, 2.0]], columns=["layer", "head", "norm", "norm"])
    with pytest.raises(ArgError, match="'norm' is there twice"):
        plot_heads(twice, "norm", ax=ax)


def test_a_state_with_gradients_and_uneven_heads_can_be_drawn(ax):
    wkv = torch.randn(1, 2, 3, 5, requires_grad=True)
    plot_head(State(wkv), 0, 1, ax=ax)
    assert ax.images[0].get_array().shape == (3, 5)
    plot_heads(State(wkv), ax=ax)


@pytest.mark.long
def test_a_map_of_a_large_model_is_drawn_in_two_seconds(ax):
    import time

    table = pd.DataFrame([(layer, head) for layer in range(32) for head in range(64)], columns=["layer", "head"])
    began = time.perf_counter()
    plot_heads(table.assign(half_life=[math.inf, 3.0] * 1024), ax=ax).figure.canvas.draw()
    assert time.perf_counter() - began < 2


def test_a_state_plots_itself_on_the_axes_that_it_is_given_and_shows_nothing(ax, state, monkeypatch):
    monkeypatch.setattr("matplotlib.pyplot.show", lambda *a, **k: pytest.fail("shown"))
    assert state.plot(ax=ax) is ax
    want = plot_heads(state, ax=Figure().subplots())
    np.testing.assert_array_equal(ax.images[0].get_array(), want.images[0].get_array())
    one = Figure().subplots()
    assert state.plot(1, 2, ax=one) is one and "layer 1, head 2" in one.get_title()
    np.testing.assert_array_equal(one.images[0].get_array(), state.wkv[1, 2])


def test_a_state_without_axes_is_drawn_on_the_current_ones(state):
    from matplotlib import pyplot as plt

    _, here = plt.subplots()
    try:
        assert state.plot() is here and here.images
    finally:
        plt.close("all")


@pytest.mark.parametrize(
    ("layer", "head", "word"), [(2, 0, "layer"), (0, None, "head"), (None, 1, "layer"), (0, -1, "head")]
)
def test_a_state_refuses_to_plot_a_place_that_it_does_not_have(ax, state, layer, head, word):
    with pytest.raises(ArgError, match=f"{word}: need an integer"):
        state.plot(layer, head, ax=ax)
    assert not ax.images
