import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_accuracy, plot_matrix, plot_outcomes
from rwkvlab.states.state import State


@pytest.fixture
def rows():
    cells = {("zero", "sort"): 0.25, ("zero", "copy"): 0.0, ("sort", "sort"): 1.0, ("sort", "copy"): 0.5}
    return pd.DataFrame(
        [(state, task, i < 4 * share) for (state, task), share in cells.items() for i in range(4)],
        columns=["state", "task", "right"],
    )


def test_accuracies_stand_where_their_state_and_task_are(rows):
    ax = plot_accuracy(rows, ax=Figure().subplots())
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.25, 0.0], [1.0, 0.5]])
    assert ax.images[0].get_clim() == (0, 1)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["sort", "copy"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["zero", "sort"]
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.00", "1.00", "0.50"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("task", "initial state")


def test_a_state_that_did_not_answer_a_task_leaves_a_blank(rows):
    ax = plot_accuracy(rows.iloc[:-4], ax=Figure().subplots())
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.00", "1.00"]


def test_a_state_is_shown_beside_what_it_does_and_pyplot_is_left_alone(rows):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    figure = plot_outcomes(State(torch.ones(2, 3, 4, 4)).named("sort"), rows)
    shown = [ax.images[0].get_array().shape for ax in figure.axes if ax.images]
    assert shown == [(2, 3), (2, 2)]
    assert pyplot.get_fignums() == before


def test_a_table_without_the_columns_is_refused(rows):
    with pytest.raises(ArgError, match="'task' is not among"):
        plot_accuracy(rows.drop(columns="task"), ax=Figure().subplots())


def test_many_states_and_odd_names_keep_their_rows():
    names = ["_a", "", None, "a", 3]
    table = pd.DataFrame({"state": names, "task": "sort", "accuracy": [0.0, 0.25, 0.5, 0.75, 1.0]})
    ax = plot_accuracy(table, ax=Figure().subplots())
    np.testing.assert_array_equal(ax.images[0].get_array()[:, 0], table["accuracy"])
    assert [text.get_text() for text in ax.get_yticklabels()] == [" _a", "''", "None", "a", "3"]


def test_a_matrix_has_each_number_in_its_cell_and_the_best_of_each_row_framed():
    cells = {("b", "x"): 1.5, ("b", "y"): 0.5, ("a", "y"): 2.25}
    table = pd.DataFrame([(*at, number) for at, number in cells.items()], columns=["text", "start", "bits_per_byte"])
    for best, framed in (("low", [(1, 0), (1, 1)]), ("high", [(0, 0), (1, 1)]), ("", [])):
        ax = plot_matrix(table, "text", "start", "bits_per_byte", ax=Figure().subplots(), best=best)
        np.testing.assert_array_equal(ax.images[0].get_array().filled(np.nan), [[1.5, 0.5], [np.nan, 2.25]])
        assert [text.get_text() for text in ax.texts] == ["1.50", "0.50", "2.25"]
        assert [tuple(np.round(np.add(patch.get_xy(), 0.46), 6)) for patch in ax.patches] == framed
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("start", "text")
        assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]


def test_a_matrix_refuses_two_rows_for_one_cell_and_an_unknown_best():
    one = pd.DataFrame({"text": ["a"], "start": ["x"], "bits": [1.23456]})
    assert plot_matrix(one, "text", "start", "bits", Figure().subplots(), digits=3).texts[0].get_text() == "1.235"
    table = pd.DataFrame({"text": ["a", "a"], "start": ["x", "x"], "bits": [1.0, 2.0]})
    with pytest.raises(ArgError, match="several rows for 'a', 'x'"):
        plot_matrix(table, "text", "start", "bits", ax=Figure().subplots())
    with pytest.raises(ArgError, match="'low', 'high'"):
        plot_matrix(table[:1], "text", "start", "bits", ax=Figure().subplots(), best="least")
