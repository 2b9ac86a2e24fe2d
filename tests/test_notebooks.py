"""Every notebook runs from top to bottom, without a word on stderr, and shows what it is there to show."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from rwkvlab.plots.fonts import NO_FONT
from rwkvlab.states.files import save_state

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TWINS = sorted(FOLDER.glob("*.zh.ipynb"))  # the same notebook in Chinese
HAN = re.compile("[\u4e00-\u9fff]")
WIDGET = "application/vnd.jupyter.widget-view+json"
# what the outputs of a notebook hold at least: pictures, tables and words, and widgets by their class, each with what a
# page without a kernel shows in its place ("": nothing, until someone has used it)
START = {"widgets": {"Playground": "text/html", "StatePicker": "text/html"}, "text/html": 3}
TOUR = {"widgets": {"StatePicker": "text/html"}, "image/png": 4, "text/html": 7}
EMOJI = ["emoji_single_round", "🇯🇵 东京(HND) ✈️ 🇫🇷 巴黎(CDG)", "从东京(HND)乘飞机到巴黎(CDG)。"]
SHOWN = {
    "00_start_here": START | {"words": EMOJI},
    "00_start_here.zh": START | {"words": EMOJI},
    "01_does_the_start_matter": TOUR | {"words": ["own state: +0.", "<mark>", "'mine'"]},
    "01_does_the_start_matter.zh": TOUR | {"words": ["自己的 state：比零 state 高 +0.", "<mark>", "'我的'"]},
    "02_what_is_in_a_state_file": {
        "widgets": {"StateInspector": "image/png"},
        "text/html": 6,
        "words": [
            *("assumed", "certain", "2048 NaN or infinite values", "is an HTML page", "lacks the end"),
            *("it is the other way round", "as stored True", "made for RWKV-6", "World-1.6B-poet", "True True"),
        ],
    },
    "03_where_do_two_states_differ": {
        "widgets": {"StateInspector": "image/png"},
        "image/png": 4,
        "text/html": 7,
        "words": [
            *("b is no multiple of a", "of 24 heads the 10 that differ most", "chosen above, too: (1, 1)"),
            *("8 of 8 heads differ", "frobenius_floor", "two tasks", "same head first"),
        ],
    },
    "04_between_two_states": {
        "widgets": {"StateMixer": "image/png"},
        "image/png": 2,
        "text/html": 6,
        "words": [
            "t = 0.4",
            "🇯🇵 Tokyo (HND) ✈️ 🇫🇷 Paris (CDG)",
            "{&quot;from&quot;: &quot;</mark>HND",
            "logodds",
            "blend: neither",
            "slerp",
            "cipher + next",
            "random, rank 1",
        ],
    },
    "05_where_the_effect_lives": {
        "image/png": 3,
        "text/html": 6,
        "words": ["reverse_share", "both move letters", "random (nats)", "L0H3 of zero", "reverse and next"],
    },
    "06_watching_a_state_move": {
        "image/png": 7,
        "text/html": 2,
        "words": [
            "is gone after 48 tokens",
            "is gone after 166 tokens",
            "gone after 19 tokens",
            "own: half",
            "all shares: 1.000000",
        ],
    },
    "07_tuning_a_state": {
        "widgets": {"TunePanel": ""},
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


# the one cell by which a notebook takes a model and states of one's own
OWN = re.compile(
    r"""MODEL = ""  # .*
STATES = ""  # .*
model, shelf = lab\.bundled\("rwkv7"\)
model = lab\.load_model\(MODEL\) if MODEL else model
shelf = lab\.Shelf\(STATES, model\) if STATES else shelf\.for_model\(model\)
torch\.set_num_threads\(torch\.get_num_threads\(\) if MODEL else 1\)  # .*
model"""
)


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


def run(notebook):
    """Execute a notebook; returns its outputs, none of which is an error or on stderr but that a font is missing."""
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in told if NO_FONT not in text]
    assert not [output for output in outputs if output.output_type == "error"]
    return outputs


def test_a_model_of_ones_own_is_taken_by_the_same_cell_everywhere():
    asked = {path.stem: [code for code in codes(path) if "MODEL" in code] for path in NOTEBOOKS}
    assert all(OWN.fullmatch(code) for cells in asked.values() for code in cells)
    assert {name[:2] for name, cells in asked.items() if cells} == {"00", "02", "03", "04", "06"}
    assert all(len(cells) <= 1 for cells in asked.values())


@pytest.mark.parametrize("number", ["00", "02", "03", "04", "06"])
def test_a_model_and_states_of_ones_own_are_used(number, tmp_path, tiny_file, random_state):
    """As far as the cell from which on a notebook asks the smallest bundled model."""
    for seed, name in enumerate(("文言文", "短")):
        save_state(random_state(name, seed), tmp_path / f"{name}.pth")
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    notebook = nbformat.read(path, as_version=4)
    ends = [at for at, cell in enumerate(notebook.cells) if "lab.bundled()" in cell.source]
    notebook.cells = notebook.cells[: ends[0] if ends else None]
    for cell in notebook.cells:
        cell.source = cell.source.replace('MODEL = ""', f"MODEL = {str(tiny_file)!r}")
        cell.source = cell.source.replace('STATES = ""', f"STATES = {str(tmp_path)!r}")
    shown = "".join(str(output) for output in run(notebook))
    assert "Model 'tiny'" in shown and "文言文" in shown and "emoji_single" not in shown


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    outputs = run(nbformat.read(path, as_version=4))
    wanted = dict(SHOWN[path.stem])
    words = wanted.pop("words")
    for name, beside in wanted.pop("widgets", {}).items():
        shown = [output["data"] for output in outputs if output.get("data", {}).get("text/plain", "").startswith(name)]
        assert shown and all(WIDGET in data and (beside or WIDGET) in data for data in shown), name
    for kind, count in wanted.items():
        assert sum(kind in output.get("data", {}) for output in outputs) >= count, kind
    text = "".join(output.get("text", "") + str(output.get("data", "")) for output in outputs)
    assert not [word for word in words if word not in text]
