"""The README's pictures, taken of the notebooks in a real JupyterLab by `make pictures`; `make test` leaves it alone.

Text in every script and flags in colour need the fonts: apt-get install fonts-noto-cjk fonts-noto-color-emoji.
"""

from base64 import b64decode
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
IMAGES = NOTEBOOKS / "images"
SHARP = {"viewport": {"width": 1300, "height": 2200}, "device_scale_factor": 1.25}  # a whole widget has room
MOST = 500_000  # bytes of a picture


@pytest.fixture
def ran(open_notebook):
    """ran(name) -> a notebook of the checkout that has run from top to bottom."""

    def run(name):
        notebook = open_notebook(NOTEBOOKS / f"{name}.ipynb", **SHARP)
        notebook.page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
        notebook.run_all(280)
        assert notebook.errors() == []
        return notebook

    return run


def keep(name, data):
    """Write a picture for the README."""
    IMAGES.mkdir(exist_ok=True)
    assert data[:4] == b"\x89PNG" and len(data) < MOST, f"{name}: {len(data)} bytes"
    (IMAGES / f"{name}.png").write_bytes(data)


def shot(notebook, selector, name):
    """Keep what a person sees of a widget."""
    part = notebook.page.locator(selector).first
    part.scroll_into_view_if_needed()
    notebook.page.mouse.move(0, 0)
    notebook.page.wait_for_timeout(500)
    keep(name, part.screenshot())


def output(notebook, word):
    """The first picture below the cell in whose code `word` stands."""
    cell = next(cell for cell in notebook.cells() if cell["type"] == "code" and word in cell["source"])
    return b64decode(next(o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})))


def test_one_question_with_a_state_and_without_and_the_states_there_are(ran):
    notebook = ran("00_start_here")
    shot(notebook, ".rwkvlab-playground", "playground")
    shot(notebook, ".rwkvlab-picker", "picker")


def test_two_states_side_by_side(ran):
    shot(ran("03_where_do_two_states_differ"), ".rwkvlab-inspector", "inspector")


def test_sliders_between_states_and_what_the_model_answers_there(ran):
    notebook = ran("04_between_two_states")
    shot(notebook, ".rwkvlab-mixer", "mixer")
    keep("between", output(notebook, "plot_sweep"))


def test_a_state_is_tuned(ran, expect):
    notebook = ran("07_tuning_a_state")
    notebook.page.locator(".rwkvlab-tune .rwkvlab-start").first.click()
    expect(notebook.page.locator(".rwkvlab-tune")).to_contain_text("step 120 of 120", timeout=200_000)
    shot(notebook, ".rwkvlab-tune", "tuning")


def test_how_sure_it_is(ran):
    keep("evidence", output(ran("08_how_sure_is_it"), "plot_accuracy"))
