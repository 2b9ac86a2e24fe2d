"""CodeButton: shows and copies the Python call which makes the same view; and how states are written in such calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from rwkvlab.states.state import State

HERE = Path(__file__).parent


class CodeButton(anywidget.AnyWidget):
    """A button that copies its trait `code` to the clipboard, and shows it to read."""

    _esm = (HERE / "code.js").read_text("utf-8")
    _css = (HERE / "code.css").read_text("utf-8")
    code = traitlets.Unicode("", help="The Python text that is copied.").tag(sync=True)


def call(function: str, *arguments: str, **options: Any) -> str:
    """Return the text of a call: `arguments` are code already, `options` become name=repr(value)."""
    named = [f"{name}={value!r}" for name, value in options.items()]
    return f"{function}({', '.join([*arguments, *named])})"


def state_code(state: State | None, shelf: Mapping[str, State] | None = None, name: str = "") -> str:
    """Return how a state is written in code: from the shelf by its name, by a variable that holds it, by its file.

    "state" where none of these is known: the reader then puts in what it is.
    """
    if state is None:
        return "None"
    if shelf is not None and name and name in shelf:
        return f"{variable_of(shelf, 'shelf')}[{name!r}]"
    if variable := variable_of(state, ""):
        return variable
    source = state.card.source.rsplit(" (", 1)[0]  # "emoji.pth (tuned)": the file's name, and what it was taken for
    return f"lab.load_state({source!r})" if source and os.path.isfile(source) else "state"


def variable_of(value: object, default: str) -> str:
    """Return the name of a notebook's variable that holds this very object, or `default` where none does."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    names = dict(getattr(shell, "user_ns", {}) or {})
    found = [name for name, held in names.items() if held is value and not name.startswith("_")]
    return default if default in found or not found else sorted(found)[0]
