"""What holds of every plot: units, contrast on light and dark, any name, any number, nothing left behind."""

import io
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import rcParams, style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from rwkvlab import plots
from rwkvlab.errors import ArgError
from rwkvlab.plots.style import contrast, luminance
from rwkvlab.states.state import State

HOSTILE = "$\\frac{1}$ <b> \x1b[31m \u202e 文言文 _" + "x" * 10_000
HEADS = [(layer, head) for layer in range(2) for head in range(3)]


def state(name, seed=0, values=4):
    wkv = torch.randn(2, 3, values, 5, generator=torch.Generator().manual_seed(seed))
    return State(wkv).named(name)


def rows(columns, *axes):
    """Return a table of every combination of the axes, and seeded numbers in (0.1, 1) in the other columns."""
    index = pd.MultiIndex.from_product(axes, names=columns.split()[: len(axes)])
    others = columns.split()[len(axes) :]
    numbers = np.random.default_rng(0).uniform(0.1, 1, (len(index), len(others)))
    return pd.DataFrame(numbers, index=index, columns=others).reset_index()


def heads(name):
    return pd.DataFrame(HEADS, columns=["layer", "head"]).assign(effect=[1.0, -2.0, 0.1, 0.2, 0.3, 0.4])


def sweep(name):
    values = "accuracy accuracy_low accuracy_high logodds logodds_low logodds_high kl logprob"
    return rows(f"arm task t {values}", ["blend", "control", name], ["sort", name], [0.0, 0.5, 1.0])


def total(name):
    return rows("start token kl surprise surprise_zero", ["state", name], range(1, 60)).assign(piece=name[:9])


def trajectory(name):
    table = rows("text token pc1 pc2", ["one", name], range(5))
    table.attrs["explained"] = (0.6, 0.3)
    return table


def growing(name):
    return pd.DataFrame({"size": [1, 2], "layer": [0, 1], "head": [2, 0], "effect": [3.0, 4.0]}).assign(
        share=[0.6, 0.8], random=[0.5, 1.0], random_low=[-0.1, 0.2], random_high=[1.0, 2.0]
    )


def states(name):
    table = pd.DataFrame({"state": ["a", name, "c"], "pc1": [0.0, 1.0, 2.0], "pc2": [0.0, 2.0, 1.0]})
    table.attrs["explained"] = (0.6, 0.3)
    return table.assign(group=["one", name, "one"])


def tuning(name):
    table = pd.DataFrame({"step": range(1, 21), "loss": np.linspace(3, 1, 20), "held_out": [np.nan, 2.0] * 10})
    return table.assign(lr=0.1)


def writes(name):
    return pd.DataFrame({"token": [3, -1, 0], "piece": [name, "the initial state", "\n"]}).assign(
        share=[0.6, 0.5, -0.1], norm=[3.0, 2.0, 1.0], surprise=[1.0, np.nan, 0.1]
    )


def matrix(table, ax=None):
    return plots.plot_matrix(table, "text", "start", "bits_per_byte", ax=ax, best="low")


# name of a plot: its table, made with a name from outside, and how it is drawn
TABLES = {
    "heads": (heads, plots.plot_heads),
    "spectrum": (lambda name: rows("state layer head index value", ["a", name], [0], [0, 1], [1, 2]), None),
    "curve": (sweep, plots.plot_curve),
    "over_time": (lambda name: rows("token layer head norm", [0, 8, 16], [0, 1], [0, 1, 2]), None),
    "surprise": (total, None),
    "set": (growing, None),
    "layers": (lambda name: rows("state layer norm", ["a", name], [0, 1, 2]), None),
    "trajectory": (trajectory, None),
    "map": (states, None),
    "tuning": (tuning, None),
    "writes": (writes, None),
    "strip": (total, None),
    "accuracy": (lambda name: rows("state task accuracy", ["a", name], ["b", name]), None),
    "matrix": (lambda name: rows("text start bits_per_byte", ["a", name], ["b", name]), matrix),
}
FIGURES = {
    "pair": (lambda name: state(name), lambda a: plots.plot_pair(a, state("b", 1), 1, 2)),
    "own pair": (lambda name: state(name), lambda a: plots.plot_pair(a, 1.01 * a, 0, 0, one_scale=False)),
    "diff": (lambda name: state(name), lambda a: plots.plot_diff(a, state("b", 1))),
    "sweep": (sweep, plots.plot_sweep),
    "influence": (
        lambda name: total(name),
        lambda table: plots.plot_influence(rows("token layer head share", [0, 9], [0, 1], [0, 1]), table),
    ),
    "outcomes": (
        lambda name: rows("state task right", ["a", name], ["b", name]),
        lambda table: plots.plot_outcomes(state("a"), table),
    ),
    "head": (lambda name: state(name), lambda a: plots.plot_head(a, 0, 0, ax=Figure().subplots()).figure),
}


def on_axes(name):
    function = TABLES[name][1] or getattr(plots, f"plot_{name}")
    return lambda table: function(table, ax=Figure(dpi=50).subplots()).figure


EVERY = {**FIGURES, **{name: (table, on_axes(name)) for name, (table, _) in TABLES.items()}}


@pytest.fixture(params=EVERY)
def drawing(request):
    """(make, draw): make(name) gives what draw takes, and draw returns a figure."""
    return EVERY[request.param]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no installed font")
        yield


def panels(figure):
    return [ax for ax in figure.findobj(Axes) if ax.axison]


def test_every_public_plot_is_here():
    here = {f"plot_{name.split()[-1]}" for name in EVERY}
    assert here == {name for name in dir(plots) if name.startswith("plot_")}


def test_every_axis_says_what_it_is_and_in_what_unit(drawing):
    make, draw = drawing
    figure = draw(make("some"))
    edges = [ax for ax in panels(figure) if ax.get_subplotspec() is not None]
    for ax in edges:
        is_bar = hasattr(ax, "_colorbar")
        inner = ax.get_subplotspec()
        last, first = inner.is_last_row() or not ax.get_shared_x_axes().get_siblings(ax)[1:], inner.is_first_col()
        assert is_bar or ax.get_xlabel() or not last, ax
        assert ax.get_ylabel() or (not first and not is_bar and ax.get_shared_y_axes().get_siblings(ax)[1:]), ax
    said = "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text)).replace("\n", " ")
    unit = ("(state units", "nats", "(share", "share of", "log-odds", "accuracy", "bits per byte")
    assert any(word in said for word in unit), said


def behind(artist, figure):
    """The luminance of what lies behind a text or line: its axes, or the figure where it stands outside."""
    ax = getattr(artist, "axes", None)
    inside = ax is not None and artist in (*ax.lines, *ax.texts, *ax.collections)
    return float(luminance((ax if inside else figure).get_facecolor())[0])


@pytest.mark.parametrize("theme", ["default", "dark_background", "only the axes dark"])
def test_lines_and_texts_are_legible_on_light_and_on_dark(drawing, theme):
    make, draw = drawing
    plain = {"axes.facecolor": "#1b1b1b"} if theme == "only the axes dark" else {}
    with style.context("default" if plain else theme), matplotlib.rc_context(plain):
        figure = draw(make("some"))
    for ax in panels(figure):
        legend = [ax.get_legend()] if ax.get_legend() else []
        lines = [line for line in ax.lines if line.get_alpha() is None]
        for artist in (*lines, ax.title, ax.xaxis.label, ax.yaxis.label):
            least = contrast(luminance(artist.get_color())[0], behind(artist, figure))
            assert least >= 3, (ax, artist)
        for text in ax.get_xticklabels() + ax.get_yticklabels():
            assert contrast(luminance(text.get_color())[0], behind(text, figure)) >= 3
        for box in legend:
            face = luminance(box.get_frame().get_facecolor())[0]
            shown = [*box.get_texts(), box.get_title(), *(line for line in box.get_lines() if line.get_alpha() is None)]
            assert all(contrast(luminance(artist.get_color())[0], face) >= 3 for artist in shown)


def test_texts_on_patches_are_legible_on_every_patch():
    table = pd.DataFrame({"piece": list("abcdefghij"), "kl": np.linspace(0, 1, 10)})
    for theme in ("default", "dark_background"):
        with style.context(theme):
            ax = plots.plot_strip(table, ax=Figure().subplots())
            image = ax.collections[0]
            faces = luminance(image.cmap(image.norm(image.get_array())))
            inks = luminance([text.get_color() for text in ax.texts])
            assert len(ax.texts) == 10 and (contrast(inks, faces) >= 4.5).all()
            cells = rows("state task accuracy", ["a"], list("bcdefgh")).assign(accuracy=np.linspace(0, 1, 7))
            ax = plots.plot_accuracy(cells, ax=Figure().subplots())
            faces = luminance(ax.images[0].cmap(np.linspace(0, 1, 7)))
            assert (contrast(luminance([text.get_color() for text in ax.texts]), faces) >= 4.5).all()


def test_any_name_is_drawn_as_text_and_cut_in_a_pdf_too(drawing):
    make, draw = drawing
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = draw(make(HOSTILE))
        figure.savefig(io.BytesIO(), format="pdf")
    assert {str(warning.message) for warning in caught} <= {plots.fonts.NO_FONT}
    for text in figure.findobj(matplotlib.text.Text):
        assert not set("\x1b\u202e") & set(text.get_text()) and len(text.get_text()) < 200
        assert not text.get_usetex()


def test_plots_leave_nothing_behind_and_do_not_write_to_their_table(drawing):
    from matplotlib import pyplot

    make, draw = drawing
    given, before = make("some"), rcParams.copy()
    copy = given.copy(deep=True) if isinstance(given, pd.DataFrame) else None
    draw(given)
    assert {**rcParams, "backend": 0} == {**before, "backend": 0} and not pyplot.get_fignums()
    if copy is not None:
        pd.testing.assert_frame_equal(given, copy)


@pytest.mark.parametrize("name", TABLES)
def test_no_table_no_rows_words_for_numbers_and_no_axes_are_refused(name):
    make, function = TABLES[name]
    function = function or getattr(plots, f"plot_{name}")
    ax, table = Figure().subplots(), make("some")
    for wrong in (None, [1], table.iloc[:0], table.drop(columns=table.columns[-1] if len(table.columns) < 4 else [])):
        if wrong is not None and isinstance(wrong, pd.DataFrame) and wrong.equals(table):
            continue
        with pytest.raises(ArgError, match=f"plot_{name}"):
            function(wrong, ax=ax)
    numbers = [column for column in table.select_dtypes("number").columns if column not in ("surprise_zero",)]
    for column in ("effect", "value", "accuracy", "norm", "surprise", "kl", "pc1", "share"):
        if column in numbers:
            words = table.assign(**{column: "many"})
            with pytest.raises(ArgError, match="need numbers"):
                function(words, column, ax=ax) if name not in ("set", "trajectory", "map", "accuracy") else function(
                    words, ax=ax
                )
            break
    with pytest.raises(ArgError, match="Axes"):
        function(table, ax=Figure())
    assert not ax.lines and not ax.images and not ax.collections  # nothing was drawn before it was refused


@pytest.mark.parametrize("name", TABLES)
def test_no_number_breaks_a_plot(name):
    make, draw = EVERY[name]
    places = ("layer", "head", "token", "index", "t", "size")
    odd = [np.nan, np.inf, 0.0, -np.inf, 1e30, -1.0]
    for numbers in (odd, [np.nan], [0.0], [np.inf]):
        table = make("some")
        for column in table.select_dtypes("number").columns.difference(places):
            table[column] = np.resize(numbers, len(table))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = draw(table)
            if numbers is odd:
                figure.draw_without_rendering()


def test_without_axes_the_current_ones_of_pyplot_are_used():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    for name, (make, function) in TABLES.items():
        _, current = pyplot.subplots()
        assert (function or getattr(plots, f"plot_{name}"))(make("some")) is current
        pyplot.close("all")


def test_transparent_axes_take_the_colours_of_what_is_behind_them():
    from rwkvlab.plots.style import dark

    figure = Figure(facecolor="#222222")
    ax = figure.subplots()
    assert not dark(ax)
    ax.set_facecolor((1, 1, 1, 0))
    assert dark(ax)
    figure.set_facecolor((1, 1, 1, 0))
    assert not dark(ax) and to_rgba(rcParams["text.color"])[:3] == (0, 0, 0)
    with matplotlib.rc_context({"text.color": "white"}):
        assert dark(ax)
