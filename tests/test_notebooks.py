"""Every notebook runs from top to bottom, without a word on stderr, and shows what it is there to show."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TWINS = sorted(FOLDER.glob("*.zh.ipynb"))  # the same notebook in Chinese
HAN = re.compile("[\u4e00-\u9fff]")
WIDGET = "application/vnd.jupyter.widget-view+json"
TOUR = {
    "image/png": 4,
    WIDGET: 1,
    "text/html": 6,
}
# what the outputs of a notebook hold at least: pictures, widgets, tables, and words
SHOWN = {
    "00_start_here": {
        WIDGET: 1,
        "text/html": 2,
        "words": ["emoji_single_round", "🇯🇵 东京(HND) ✈️ 🇫🇷 巴黎(CDG)", "Fly from Tokyo (HND) to Paris", "StatePicker"],
    },
    "00_start_here.zh": {
        WIDGET: 1,
        "text/html": 2,
        "words": ["emoji_single_round", "🇯🇵 东京(HND) ✈️ 🇫🇷 巴黎(CDG)", "从东京(HND)乘飞机到巴黎(CDG)。", "StatePicker"],
    },
    "01_does_the_start_matter": TOUR | {"words": ["own state: +0.", "<mark>", "StatePicker", "'mine'"]},
    "01_does_the_start_matter.zh": TOUR
    | {"words": ["自己的 state：比零 state 高 +0.", "<mark>", "StatePicker", "'我的'"]},
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
    "08_how_sure_is_it": {
        "image/png": 3,
        "text/html": 3,
        "words": [
            *(
                "holds: every tuned state is right in content",
                "known to tuned states alone: swap list",
                "right means at",
            ),
            *("told apart from no state and every control: 14 of 14", "best control", "wrong (json)", "live 1.000"),
            "said   🇮🇹 欧元 💰 🇳🇱 欧元",
        ],
    },
    "09_挂载_state": {
        "text/html": 4,
        "words": ["the default", "用途 chn_文言文和古典名著", "made for RWKV-6", "tenalp", "不见了", "+[[state]]"],
    },
}


def codes(path):
    """The code cells of a notebook."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_every_notebook_says_what_it_shows():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


def test_the_notebooks_are_in_one_order_without_a_gap():
    numbers = [int(path.name[:2]) for path in NOTEBOOKS if path not in TWINS]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_notebook_in_chinese_runs_the_same_code(path):
    """Comments may differ, and strings where the Chinese one is in Chinese."""
    english = path.with_name(path.name.replace(".zh", ""))
    assert len(codes(path)) == len(codes(english))
    for here, there in zip(codes(path), codes(english), strict=True):
        assert alike(here, there), f"{here}\n\nis not\n\n{there}"


def alike(chinese, english):
    """Whether two codes are the same, but for comments and strings that are put into Chinese."""
    trees = [ast.parse(code) for code in (chinese, english)]
    for here, there in zip(*map(ast.walk, trees), strict=False):
        values = [node.value for node in (here, there) if isinstance(node, ast.Constant)]
        if len(values) == 2 and all(isinstance(value, str) for value in values) and HAN.search(values[0]):
            here.value = there.value = "translated"
    return ast.dump(trees[0]) == ast.dump(trees[1])


def test_code_that_differs_is_told_from_what_is_translated():
    assert alike('print("零", a)  # 零', 'print("zero", a)')
    assert not alike('print("零", a)', 'print("zero", b)')
    assert not alike('find("sort")', 'find("reverse")')
    assert not alike("f(x, 1)", "f(x, 2)")


@pytest.mark.parametrize("name", ["00_start_here", "00_start_here.zh"])
def test_the_first_notebook_names_all_the_others(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    links = re.findall(r"\]\(([^)]+)\)", "".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    assert [link for link in links if not (FOLDER / link).is_file()] == []
    assert {int(path.name[:2]) for path in NOTEBOOKS} - {int(link[:2]) for link in links} <= {0}
    assert {path.name for path in TWINS} - {f"{name}.ipynb"} <= set(links) or name.endswith(".zh")


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
