"""The path of a person in a real JupyterLab works in these tests: open, run, drag a slider, look, read it in Python."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]

CELLS = [
    "import io\nimport ipywidgets\nimport torch\nimport rwkvlab as lab\nfrom matplotlib.figure import Figure",
    "model, shelf = lab.bundled()\nstate = shelf['sort']\nmodel.dims.L",
    """
picture = ipywidgets.Image(format="png")
picture.add_class("state-view")
caption = ipywidgets.Label()
caption.add_class("state-caption")
layer = ipywidgets.IntSlider(0, min=0, max=model.dims.L - 1, description="layer", continuous_update=False)

def draw(*_):
    figure = Figure(figsize=(3, 3), layout="constrained")
    lab.plot_head(state, layer.value, 0, ax=figure.add_subplot())
    file = io.BytesIO()
    figure.savefig(file, format="png")
    picture.value = file.getvalue()
    caption.value = f"状态 sort, layer {layer.value}"

layer.observe(draw, "value")
draw()
ipywidgets.VBox([layer, picture, caption])""",
]


def test_a_slider_changes_the_picture_and_python_reads_it_back(open_notebook, expect):
    notebook = open_notebook(CELLS).run_all()
    assert notebook.errors() == [] and notebook.stderr() == []
    page = notebook.page
    expect(page.locator(".state-caption")).to_have_text("状态 sort, layer 0")
    before = page.locator("img.state-view").get_attribute("src")
    page.locator(".widget-slider .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".state-caption")).to_have_text("状态 sort, layer 1")
    assert page.locator("img.state-view").get_attribute("src") != before
    assert min(notebook.pixels("img.state-view")[:2]) > 200, "a heat map of both signs is red and blue"
    assert notebook.run("print(layer.value, '读')") == "1 读\n"
    # and from Python to the page
    assert notebook.run("layer.value = 0") == ""
    expect(page.locator(".state-caption")).to_have_text("状态 sort, layer 0")
    expect(page.locator(".widget-slider .widget-readout")).to_have_text("0")


def test_a_notebook_is_opened_in_either_theme(open_notebook, theme):
    notebook = open_notebook(["1 + 1"], theme=theme).run_all()
    back = "getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor"
    red = int(re.findall(r"\d+", notebook.page.evaluate(back))[0])
    assert red < 60 if theme == "dark" else red > 200
    assert notebook.cells()[0]["outputs"][0]["data"]["text/plain"] == "2"


def test_a_file_is_opened_as_a_copy(open_notebook, tmp_path):
    path = tmp_path / "挂载 a#b.ipynb"
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    cell = nbformat.v4.new_code_cell("import os; print(os.getcwd())")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    original = path.read_bytes()
    notebook = open_notebook(path).run_all()
    assert notebook.cells()[0]["outputs"][0]["text"].strip() == str(notebook.folder)
    assert notebook.run("print(os.environ['OMP_NUM_THREADS'])") == "1\n"
    assert path.read_bytes() == original


def test_an_error_and_stderr_of_a_cell_are_seen(open_notebook):
    notebook = open_notebook(["import sys; print('no', file=sys.stderr)", "1 / 0", "print('never')"]).run_all()
    assert notebook.errors() == [(2, "ZeroDivisionError", "division by zero")]
    assert notebook.stderr() == ["no\n"]


def test_what_leaves_the_machine_and_what_fails_in_the_page_is_seen(open_notebook):
    notebook = open_notebook([])
    page = notebook.page
    assert page.evaluate("fetch('http://127.0.0.1.example.com/a').catch(() => 'refused')") == "refused"
    page.evaluate("new WebSocket('ws://example.com/b')")
    page.evaluate("setTimeout(() => { throw new Error('on purpose') }, 0)")
    page.evaluate("alert('hello')")
    page.wait_for_timeout(300)
    assert notebook.outside == ["http://127.0.0.1.example.com/a", "ws://example.com/b"]
    assert ["on purpose" in error for error in notebook.js_errors] == [True]
    assert notebook.dialogs == ["hello"]
    for seen in (notebook.outside, notebook.js_errors, notebook.dialogs):
        seen.clear()


def test_rwkvlab_lab_shows_copies_of_the_notebooks_and_asks_nothing(rwkvlab_lab, browser, expect):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{rwkvlab_lab.url}/lab?token={rwkvlab_lab.token}", wait_until="domcontentloaded")
    names = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    expect(page.locator(".jp-DirListing-itemText")).to_have_text(names)
    page.get_by_text(names[0]).dblclick()
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle")
    expect(page.locator(".jp-Notebook h1").first).to_be_visible()
    # the question about news comes some seconds after the start
    page.wait_for_timeout(3000)
    assert page.locator("[role=alert], .Toastify__toast").all_inner_texts() == []
    page.close()
