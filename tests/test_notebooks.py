"""Every notebook runs from top to bottom, without a word on stderr, and shows what it is there to show."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
# what the outputs of a notebook hold at least: pictures, widgets, tables, and words
SHOWN = {
    "01_does_the_start_matter": {
        "image/png": 4,
        "application/vnd.jupyter.widget-view+json": 1,
        "text/html": 6,
        "words": ["own state: +0.", "<mark>", "StatePicker", "'mine'"],
    },
    "02_what_is_in_a_state_file": {
        "text/html": 5,
        "words": [
            *("assumed", "certain", "2048 NaN or infinite values", "is an HTML page", "lacks the end"),
            *("it is the other way round", "as stored True", "made for RWKV-6", "World-1.6B-poet", "True True"),
        ],
    },
    "03_where_do_two_states_differ": {
        "image/png": 3,
        "text/html": 6,
        "words": ["b is no multiple of a", "8 of 8 heads differ", "frobenius_floor", "two tasks", "same head first"],
    },
    "04_between_two_states": {
        "image/png": 1,
        "text/html": 5,
        "words": ["logodds", "blend: neither", "slerp", "cipher + next", "random, rank 1"],
    },
    "05_where_the_effect_lives": {
        "image/png": 3,
        "text/html": 6,
        "words": ["reverse_share", "both move letters", "random (nats)", "L0H3 of zero", "reverse and next"],
    },
    "06_watching_a_state_move": {
        "image/png": 6,
        "text/html": 2,
        "words": ["is gone after 166 tokens", "gone after 19 tokens", "own: half", "all shares: 1.000000"],
    },
    "07_tuning_a_state": {
        "image/png": 3,
        "text/html": 5,
        "words": [
            *("test questions among the examples: 0", "times normal", "120 steps, lr 0.16", "- 到巴黎(CDG)"),
            *("in plain sentences: 1.00", "same answer as from zero", "purpose list_single_round", "- To Paris (CDG)"),
        ],
    },
    "挂载_state": {
        "text/html": 4,
        "words": ["the default", "用途 chn_文言文和古典名著", "made for RWKV-6", "tenalp", "不见了", "+[[state]]"],
    },
}


def test_every_notebook_says_what_it_shows():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    wanted = dict(SHOWN[path.stem])
    words = wanted.pop("words")
    for kind, count in wanted.items():
        assert sum(kind in output.get("data", {}) for output in outputs) >= count, kind
    text = "".join(output.get("text", "") + str(output.get("data", "")) for output in outputs)
    assert not [word for word in words if word not in text]
