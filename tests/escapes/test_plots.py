"""Plots with hostile names, columns and pieces: drawn as they are, not as formulas; no element of an SVG is theirs."""

import xml.etree.ElementTree as ElementTree
from collections import Counter

import matplotlib
import pandas as pd
import pytest
import torch
from made import state_with
from matplotlib.figure import Figure
from matplotlib.text import Text
from payloads import CHINESE, FEW, FORTY, HARMLESS, KINDS, acting

from rwkvlab import plots
from rwkvlab.plots import (
    plot_accuracy,
    plot_curve,
    plot_head,
    plot_heads,
    plot_layers,
    plot_map,
    plot_matrix,
    plot_outcomes,
    plot_strip,
    plot_surprise,
    plot_trajectory,
    plot_writes,
)
from rwkvlab.states.state import State

SIZE = {"figsize": (12, 12), "dpi": 30}
CHOSEN = ["$\\frac", "<script>alert(1)</script>", *KINDS["formulas"][:1], *KINDS["directions"][:1]]
WITHOUT_NAMES = {"plot_tuning", "plot_over_time", "plot_set"}  # numbers only


def draw_titles(texts, figure):
    """Draw two panels a text: its name as a title, and as the word beside the colours."""
    panels = figure.subplots(2, len(texts), squeeze=False)
    for text, above, below in zip(texts, *panels, strict=True):
        plot_head(state_with(name=text), 0, 0, ax=above)
        plot_heads(pd.DataFrame({"layer": [0], "head": [0], text: [1.0]}), ax=below)


def draw_lines(texts, figure):
    """Draw two panels a text: a state without a name by its recipe, and a column of its own."""
    panels = figure.subplots(2, len(texts), squeeze=False)
    for text, above, below in zip(texts, *panels, strict=True):
        plot_heads(state_with(name="", recipe=text), ax=above)
        plot_curve(pd.DataFrame({"t": [0.0], "task": ["a"], text: [1.0]}), text, ax=below)


def draw_ticks(texts, figure):
    above, below = figure.subplots(2, 1)
    plot_accuracy(pd.DataFrame([{"state": text, "task": text, "right": True} for text in texts]), ax=above)
    table = pd.DataFrame([{"text": text, "start": "a", "bits_per_byte": 1.0} for text in texts])
    plot_matrix(table, "text", "start", "bits_per_byte", ax=below)


def draw_legend(texts, figure):
    rows = [{"t": t, "task": text, "accuracy": t} for text in texts for t in (0.0, 1.0)]
    plot_curve(pd.DataFrame(rows), ax=figure.add_subplot())


def draw_pieces(texts, figure):
    """Draw two panels: the texts as tokens in reading order, and as bars."""
    above, below = figure.subplots(2, 1)
    table = pd.DataFrame({"piece": texts, "kl": 1.0, "token": range(len(texts)), "share": 0.1})
    plot_strip(table, ax=above, width=1000)
    plot_writes(table, ax=below, top=100)


def draw_series(texts, figure):
    """Draw a panel each in which the texts are starts, ways, states, and states beside one another."""
    table = pd.DataFrame([{"start": text, "token": at, "kl": 1.0} for text in texts for at in (0, 1)])
    one, two, three = figure.subplots(3, 1)
    plot_surprise(table, "kl", ax=one)
    plot_trajectory(table.assign(text=table["start"], pc1=1.0, pc2=table["token"]), ax=two)
    plot_layers(table.assign(part=table["start"], layer=table["token"]), "kl", ax=three)


DRAWN = [(draw_titles, FORTY), (draw_lines, FORTY), (draw_ticks, FORTY), (draw_legend, FEW)]
DRAWN += [(draw_pieces, FORTY), (draw_series, FORTY)]


@pytest.mark.parametrize(("draw", "texts"), DRAWN)
def test_no_plot_fails_and_no_element_of_an_svg_comes_from_a_text(draw, texts, tmp_path):
    texts = list(dict.fromkeys([*CHOSEN, *texts]))
    found = []
    for some in (texts, [f"{HARMLESS}{at}" for at in range(len(texts))]):
        figure = Figure(**SIZE)
        draw(some, figure)
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # texts as texts, not as outlines
            figure.savefig(tmp_path / "a.svg")
        page = (tmp_path / "a.svg").read_text(encoding="utf-8")
        elements = list(ElementTree.fromstring(page).iter())
        found.append(Counter((element.tag, *sorted(set(element.attrib) - {"style"})) for element in elements))
        shown = "".join(element.text or "" for element in elements if element.tag.endswith("}text"))
        assert not acting(shown)
        if some is texts:
            assert "$\\frac" in shown and "<script>" in shown  # as they are, and not as formulas
    more = found[0] - found[1]  # blank texts have no element at all
    assert not more, more


def panels_of(text):
    """Yield figures of the plots that show a text in a panel of its own, or in several."""
    one = state_with(name=text)
    two = State(torch.ones(1, 1, 4, 4)).named("b")
    yield plots.plot_pair(one, two, 0, 0)
    yield plots.plot_diff(one, two)
    yield plot_outcomes(one, pd.DataFrame([{"state": text, "task": text, "right": True}]))
    table = pd.DataFrame({"arm": ["blend", text], "task": [text, text], "t": [0.0, 1.0], "accuracy": [0.1, 0.2]})
    yield plots.plot_sweep(table.assign(logodds=0.0, kl=0.1))
    spectrum = pd.DataFrame({"state": [text], "layer": [0], "head": [0], "index": [0], "value": [1.0]})
    yield plots.plot_spectrum(spectrum, ax=Figure().subplots()).figure
    points = pd.DataFrame({"state": [text, "b"], "pc1": [0.0, 1.0], "pc2": [0.0, 1.0]})
    yield plot_map(points, ax=Figure().subplots()).figure
    along = pd.DataFrame({"token": [0, 9], "layer": [0, 0], "head": [0, 0], "share": [0.1, 0.2]})
    total = [
        {"start": start, "token": at, "kl": 1.0, "piece": text} for start in ("state", text) for at in range(1, 60)
    ]
    yield plots.plot_influence(along, pd.DataFrame(total).assign(surprise=1.0, surprise_zero=1.0))


@pytest.mark.parametrize("text", [*CHOSEN[:2], CHINESE[0]])
def test_no_title_label_or_legend_is_a_formula_or_acts(text):
    said = []
    for figure in panels_of(text):
        drawn = figure.findobj(Text)
        assert not any(one.get_usetex() for one in drawn)
        said += [one.get_text() for one in drawn]
    # a dollar that is not escaped begins a formula
    assert not acting("".join(said)) and not any("$" in one.replace("\\$", "") for one in said)
    # as it is, or by its codes where no font has them
    assert any(text.replace("$", "\\$") in one or "\\u6587" in one for one in said)


def test_every_plot_that_shows_names_is_drawn_here():
    from pathlib import Path

    source = Path(__file__).read_text("utf-8")
    assert {name for name in dir(plots) if name.startswith("plot_") and f"{name}(" not in source} == WITHOUT_NAMES


def test_a_figure_of_a_state_and_its_answers_takes_any_name(tmp_path):
    text = "$\\frac</svg><script>\x1b[31m"
    rows = pd.DataFrame([{"state": text, "task": text, "right": True}])
    plot_outcomes(state_with(name=text), rows).savefig(tmp_path / "a.png", dpi=20)
