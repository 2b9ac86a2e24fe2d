import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_curve, plot_sweep

TABLE = pd.DataFrame(
    {
        "t": [1.0, 0.0, 0.0, 1.0],
        "task": ["sort", "sort", "$x$", "$x$"],
        "accuracy": [0.9, 0.1, 0.6, 0.2],
        "logprob": -1.0,
    }
).assign(logprob=-1.0)


def test_each_task_is_a_line_in_the_order_of_t():
    ax = plot_curve(TABLE, ax=Figure().subplots())
    first, second = ax.lines
    np.testing.assert_array_equal(first.get_xydata(), [[0, 0.1], [1, 0.9]])
    np.testing.assert_array_equal(second.get_xydata(), [[0, 0.6], [1, 0.2]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sort", r"\$x\$"]
    assert first.get_color() != second.get_color() and first.get_marker() != second.get_marker()
    assert ax.get_xlabel().startswith("t (") and ax.get_ylabel() == "accuracy (share of answers right)"
    assert ax.get_ylim()[0] < 0 and ax.get_ylim()[1] > 1


def test_log_probabilities_have_their_unit():
    assert "nats" in plot_curve(TABLE, "logprob", ax=Figure().subplots()).get_ylabel()


def test_a_table_without_the_columns_is_refused():
    with pytest.raises(ArgError, match="'kl' is not among"):
        plot_curve(TABLE, "kl", ax=Figure().subplots())


ARMS = ["mix of logits", "blend", "another seed", "zero to a", "a to random"]


def sweep(tasks=("sort", "copy"), arms=ARMS):
    rows = [(arm, t, task, t) for arm in arms for task in tasks for t in (0.0, 0.5, 1.0)]
    table = pd.DataFrame(rows, columns=["arm", "t", "task", "accuracy"])
    table = table.assign(logodds=table["t"] * 8 - 4, kl=table["t"])
    bands = {f"{value}_{end}": table[value] + by for value in ("accuracy", "logodds") for end, by in BANDS.items()}
    return table.assign(**bands)


BANDS = {"low": -0.1, "high": 0.2}


def looks(lines):
    return {(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in lines}


def names(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_the_blend_is_thick_and_solid_and_every_control_looks_its_own():
    ax = plot_curve(sweep(["sort"]), ax=Figure().subplots())
    blend, *controls = ax.lines
    assert blend.get_linestyle() == "-" and "-" not in [line.get_linestyle() for line in controls]
    assert blend.get_linewidth() >= 2 * max(line.get_linewidth() for line in controls)
    assert len(looks(ax.lines)) == len({line.get_color() for line in ax.lines}) == 5
    assert names(ax.get_legend()) == ["blend", *(arm for arm in ARMS if arm != "blend")]
    assert ax.get_legend().get_title().get_text() == "task sort"


def test_tasks_times_arms_need_only_tasks_plus_arms_in_the_legend():
    ax = plot_curve(sweep(), "logodds", ax=Figure().subplots())
    lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert len(looks(lines)) == len(lines) == 10 and len({line.get_color() for line in lines}) == 2
    assert names(ax.get_legend()) == ["sort", "copy", "blend", *(arm for arm in ARMS if arm != "blend")]


def test_intervals_are_bands_in_the_colour_of_their_line():
    ax = plot_curve(sweep(["sort"]), ax=Figure().subplots())
    assert len(ax.collections) == 5
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [-0.1, 1.2])
    assert tuple(ax.collections[0].get_facecolor()[0][:3]) == to_rgb(ax.lines[0].get_color())
    assert not plot_curve(sweep(["sort"]), "kl", ax=Figure().subplots()).collections  # no columns, no band


def test_a_sweep_has_a_row_a_value_and_a_column_a_task_on_shared_scales():
    table = sweep()
    table["kl"] *= np.where(table["task"] == "copy", 9, 1)
    figure = plot_sweep(table, ("accuracy", "logodds", "kl"))
    panels = np.array(figure.axes).reshape(3, 2)
    assert [ax.get_title() for ax in panels[0]] == ["task sort", "task copy"]
    assert [ax.get_ylabel() for ax in panels[:, 0]] == [
        *("accuracy (share of answers right)", "log-odds (nats)", "KL (nats a token)")
    ]
    assert all(row[0].get_ylim() == row[1].get_ylim() for row in panels)
    assert all(ax.get_xlabel().startswith("t (") for ax in panels[-1])
    (legend,) = figure.legends
    assert names(legend) == ["blend", *(arm for arm in ARMS if arm != "blend")]
    assert all(
        looks(line for line in ax.lines if len(line.get_xdata()) == 3) == looks(panels[0, 0].lines)
        for ax in figure.axes
    )


def test_a_sweep_with_nothing_but_the_blend_needs_no_legend():
    assert not plot_sweep(sweep(arms=["blend"]), ["kl"]).legends
    with pytest.raises(ArgError, match="values"):
        plot_sweep(sweep(), "kl")


def test_names_that_begin_with_an_underscore_stay_in_the_legend():
    ax = plot_curve(TABLE.replace("sort", "_sort"), ax=Figure().subplots())
    assert names(ax.get_legend())[0].strip() == "_sort"


def test_a_task_without_a_name_and_a_column_of_categories_are_drawn():
    table = TABLE.assign(task=pd.Categorical([None, None, "b", "b"], categories=["b", "unused"]))
    assert len(plot_curve(table, ax=Figure().subplots()).lines) == 2
