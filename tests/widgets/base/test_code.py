import json

import pytest
from IPython.core import getipython

from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.code import CodeButton, call, state_code, variable_of


@pytest.fixture
def notebook(monkeypatch):
    """The variables of a notebook, as IPython holds them."""
    shell = type("Shell", (), {"user_ns": {}})()
    monkeypatch.setattr(getipython, "get_ipython", lambda: shell)
    return shell.user_ns


def test_a_call_is_python_whatever_the_names_are():
    hostile = "a\"; import os #'\n\u202e"
    text = call("lab.widgets.StateInspector", "shelf['x']", name=hostile, at=(1, 2))
    assert "\n" not in text and "\u202e" not in text
    names = {"lab": type("lab", (), {"widgets": type("w", (), {"StateInspector": staticmethod(lambda *a, **k: k)})})}
    assert eval(text, {**names, "shelf": {"x": 1}}) == {"name": hostile, "at": (1, 2)}


def test_a_state_is_written_by_shelf_variable_or_file(tmp_path, random_state, notebook, monkeypatch):
    save_state(random_state(), tmp_path / "a'b.pth")
    shelf = Shelf(tmp_path)
    state = shelf["a'b"]
    assert state_code(None) == "None"
    assert state_code(state, shelf, "a'b") == 'shelf["a\'b"]'
    monkeypatch.chdir(tmp_path)
    assert state_code(state) == 'lab.load_state("a\'b.pth")'
    monkeypatch.chdir("/")
    assert state_code(random_state()) == "state"
    notebook.update(mine=state, _=state, states=shelf)
    assert state_code(state) == "mine"
    assert state_code(state, shelf, "a'b") == 'states["a\'b"]'


def test_a_variable_is_found_by_identity_and_the_usual_name_goes_first(notebook):
    value = object()
    assert variable_of(value, "model") == "model"
    notebook.update(b=value, a=value, _x=value, other=object())
    assert variable_of(value, "model") == "a"
    notebook["model"] = value
    assert variable_of(value, "model") == "model"


def test_the_button_carries_its_files_and_loads_nothing_from_outside():
    button = CodeButton(code="x = 1")
    assert button.code == "x = 1"
    for name in ("_esm", "_css"):
        text = str(getattr(button, name))
        assert len(text) > 100 and "http" not in text and "innerHTML" not in text and "import" not in text
    assert json.dumps(button.get_state(["code"])) == '{"code": "x = 1"}'


def test_a_caption_shows_what_is_said_and_nothing_acts():
    caption = Caption("<img src=x onerror=alert(1)> \x1b[31m \\(x\\) 你好")
    assert caption.text.startswith("<img")
    assert "<img" not in caption.value and "\x1b" not in caption.value
    assert "你好" in caption.value and "mathjax_ignore" in caption.value
    caption.say("x" * 5000)
    assert len(caption.value) < 2000 and len(caption.text) == 5000
