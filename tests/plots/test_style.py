import math

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import style

# Machado, Oliveira and Fernandes 2009: what linear RGB becomes without one kind of cone
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour, vision):
    """CIE L*a*b* of a colour as someone sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.clip(np.array(vision) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [style.COLOURS, style.COLOURS_DARK])
def test_colours_are_told_apart_with_any_colour_vision(colours, vision):
    seen = np.array([lab(colour, VISION[vision]) for colour in colours])
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
    assert apart.min() > 15  # a difference of 2 can just be seen


@pytest.mark.parametrize(("colours", "face"), [(style.COLOURS, "white"), (style.COLOURS_DARK, "#222222")])
def test_every_colour_is_legible_where_it_is_used(colours, face):
    assert (style.contrast(style.luminance(list(colours)), style.luminance(face)) >= style.CONTRAST).all()


@pytest.mark.parametrize(
    ("face", "is_dark"), [("white", False), ("#e5e5e5", False), ("#808080", False), ("#222222", True), ("navy", True)]
)
def test_dark_axes_are_told_by_their_face(face, is_dark):
    ax = Figure().subplots()
    ax.set_facecolor(face)
    assert style.dark(ax) == is_dark
    assert style.contrast(style.luminance(style.ink(ax)), style.luminance(face)) >= 4.5
    for count in (1, 12, 61):
        shades = style.ramp(ax, count)(np.arange(count))
        if face != "#808080":  # half of the shades are near any grey
            assert (style.contrast(style.luminance(shades), style.background(ax)) >= style.CONTRAST - 1e-6).all()


def test_nothing_is_the_colour_of_the_page_and_both_signs_leave_it():
    for face in ("white", "black"):
        ax = Figure().subplots()
        ax.set_facecolor(face)
        low, zero, high = style.luminance(style.colours_for(ax, True)([0.0, 0.5, 1.0]))
        page = float(style.luminance(face)[0])
        assert style.contrast(zero, page) < 1.3
        assert min(style.contrast(low, page), style.contrast(high, page)) > 8


def test_an_older_matplotlib_has_a_diverging_map_too(monkeypatch):
    monkeypatch.setattr(style, "DIVERGING_DARK", "not there yet")
    ax = Figure().subplots()
    ax.set_facecolor("black")
    assert style.colours_for(ax, True).name == style.DIVERGING


@pytest.mark.parametrize(
    ("values", "limit"), [([1, -3, 2], 3), ([0, 0], 1), ([], 1), ([math.nan, math.inf, -2], 2), ([0] * 999 + [5], 5)]
)
def test_a_limit_covers_the_finite_values_and_is_never_zero(values, limit):
    assert style.limit_of(values) == limit


@pytest.mark.parametrize(
    ("values", "extend"), [([0, 1], "neither"), ([-2, 1], "min"), ([0, 3], "max"), ([-2, 3, math.nan], "both")]
)
def test_the_bar_shows_where_values_go_on(values, extend):
    assert style.extend_of(values, -1, 1) == extend


def test_a_long_legend_is_cut_and_says_so():
    ax = Figure().subplots()
    for number in range(style.ENTRIES + 5):
        ax.plot([0], [0], label=f"{number}")
    style.legend(ax)
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(said) == style.ENTRIES + 1 and said[-1] == "… 5 more"


def test_a_figure_or_an_array_of_axes_is_no_panel():
    for wrong in (Figure(), np.array([Figure().subplots()]), "here"):
        with pytest.raises(ArgError, match="ax: need the Axes of one panel"):
            style.axes_of(wrong)


def test_a_legend_has_the_face_of_its_axes_and_not_that_of_rcparams():
    ax = Figure().subplots()
    ax.set_facecolor("#111111")
    ax.plot([0], [0], label="a")
    style.legend(ax)
    frame = ax.get_legend().get_frame().get_facecolor()
    assert style.luminance(frame)[0] < 0.02 and matplotlib.rcParams["axes.facecolor"] == "white"
    assert ax.get_legend().get_texts()[0].get_color() == "white"
