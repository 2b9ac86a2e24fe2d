import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_strip

pytestmark = pytest.mark.filterwarnings("ignore:no installed font")


@pytest.fixture
def ax():
    return Figure(figsize=(10, 4)).subplots()


def table(pieces, **columns):
    return pd.DataFrame({"piece": pieces, "kl": np.linspace(0, 1, len(pieces))}).assign(**columns)


def boxes(ax):
    """(left, right, line) of every patch."""
    found = [path.vertices for path in ax.collections[0].get_paths()]
    return [(box[:, 0].min(), box[:, 0].max(), round(box[:, 1].mean())) for box in found]


def test_tokens_stand_in_reading_order_and_lines_are_wrapped(ax):
    plot_strip(table(["The", " ship", " s", "\n", "中午"]), ax=ax, width=10)
    assert [text.get_text() for text in ax.texts][:4] == ["The", " ship", " s", "⏎"]
    assert boxes(ax)[:4] == [(0, 3, 0), (3, 8, 0), (8, 10, 0), (0, 1, 1)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first line is the upper one
    np.testing.assert_allclose(ax.collections[0].get_array(), [0, 0.25, 0.5, 0.75, 1])


def test_a_letter_as_wide_as_two_has_a_patch_as_wide_as_two(ax, monkeypatch):
    monkeypatch.setattr("rwkvlab.plots.strip.label", lambda text, limit: text)
    plot_strip(table(["中午", "a"]), ax=ax)
    assert boxes(ax) == [(0, 4, 0), (4, 5, 0)]


def test_states_begin_lines_of_their_own_with_one_scale(ax):
    both = pd.concat([table(["a", "b"], state="zero"), table(["a", "c"], state="sort", kl=[0.0, 8.0])])
    plot_strip(both, ax=ax)
    assert [box[2] for box in boxes(ax)] == [0, 0, 1, 1]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["zero", "sort"]
    assert len(ax.collections) == 1 and ax.collections[0].get_clim() == (0, 8)
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "KL (nats a token)"


def test_the_scale_can_be_given_and_signed_numbers_lie_about_zero(ax):
    plot_strip(table(["a", "b"]), ax=ax, limit=4)
    assert ax.collections[0].get_clim() == (0, 4)
    plot_strip(table(["a", "b"], kl=[-2.0, 1.0]), ax=ax)
    assert ax.collections[1].get_clim() == (-2, 2)


def test_no_number_leaves_a_token_without_a_colour(ax):
    plot_strip(table(["a", "b"], kl=[1.0, np.nan]), ax=ax)
    assert list(np.ma.getmaskarray(ax.collections[0].get_array())) == [False, True]
    assert ax.texts[1].get_color() == "black"


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_pieces_fit_their_patches(layout):
    ax = Figure(figsize=(5, 4), layout=layout).subplots()
    pieces = [" lighthouse", "WWWW", "iii", " $x$ "] * 20
    plot_strip(table(pieces, state=["a state with a long name"] * 40 + ["b"] * 40), ax=ax, width=40)
    ax.figure.draw_without_rendering()
    for text, (left, right, _) in zip(ax.texts, boxes(ax), strict=True):
        wide = text.get_window_extent().width
        room = ax.transData.transform((right, 0))[0] - ax.transData.transform((left, 0))[0]
        assert wide <= room * 1.05, text


def test_pieces_that_could_not_be_read_are_left_out_and_it_says_so(ax):
    plot_strip(table([" lighthouse"] * 4000), ax=ax)
    assert not ax.texts and "too small" in ax.get_xlabel() and len(boxes(ax)) == 4000


def test_widths_and_limits_are_checked(ax):
    for wrong in ({"width": 2}, {"limit": 0}, {"limit": np.nan}, {"width": 10.5}):
        with pytest.raises(ArgError, match=next(iter(wrong))):
            plot_strip(table(["a"]), ax=ax, **wrong)


@pytest.mark.parametrize("column", ["text", "prompt", "state", "start", "sample", "along"])
def test_whatever_tells_two_texts_apart_begins_a_line(ax, column):
    both = pd.concat([table(["a", "b"], **{column: "one"}), table(["c"], **{column: "two"})])
    plot_strip(both, ax=ax)
    assert [box[2] for box in boxes(ax)] == [0, 0, 1]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one", "two"]
