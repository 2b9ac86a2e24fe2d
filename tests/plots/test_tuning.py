import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.model.tuning import TuneStep
from rwkvlab.plots import plot_tuning


def steps(held=(None, 2.0, None, 0.5, None, 0.75)):
    return [
        TuneStep(at, 6, 4.0 / at, 1.0, 0.01, held_out=one, best=None if one is None else 0.5)
        for at, one in enumerate(held, 1)
    ]


def axes(data):
    return plot_tuning(data, ax=Figure().subplots())


def test_both_losses_are_drawn_with_their_units_and_the_lowest_is_ringed():
    ax = axes(steps())
    batch, held, ring = ax.lines
    assert batch.get_xydata().tolist() == [[at, 4.0 / at] for at in range(1, 7)]
    assert held.get_xydata().tolist() == [[2, 2.0], [4, 0.5], [6, 0.75]]
    assert ring.get_xydata().tolist() == [[4, 0.5]]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "loss (nats a token)", "log")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [line.get_label() for line in ax.lines]


def test_a_table_is_drawn_as_the_steps_are_and_stays_as_it_was():
    table = pd.DataFrame(steps(), columns=["step", "loss", "held_out"])
    before = table.copy()
    assert [line.get_xydata().tolist() for line in axes(table).lines] == [
        line.get_xydata().tolist() for line in axes(steps()).lines
    ]
    pd.testing.assert_frame_equal(table, before)


def test_without_held_out_examples_there_is_one_line():
    assert len(axes(steps([None] * 3)).lines) == 1
    assert len(axes(pd.DataFrame({"step": [1, 2], "loss": [3.0, 2.0]})).lines) == 1


def test_losses_that_are_not_positive_or_not_finite_are_drawn_on_a_plain_scale():
    ax = axes(pd.DataFrame({"step": [1, 2, 3], "loss": [0.0, np.inf, 1.0], "held_out": [np.nan, -np.inf, np.nan]}))
    assert ax.get_yscale() == "linear" and len(ax.lines) == 1
    ax.figure.canvas.draw()


@pytest.mark.parametrize("wrong", [[], [1, 2], "steps", None, pd.DataFrame({"step": [1]})])
def test_what_holds_no_steps_is_refused(wrong):
    with pytest.raises(ArgError, match="plot_tuning"):
        axes(wrong)


def test_pyplot_is_not_needed_where_axes_are_given():
    axes(steps())
    assert plt.get_fignums() == []
