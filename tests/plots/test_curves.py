import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError
from rwkvlab.plots import plot_curve

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
