"""SaveBox: a file name, a button that writes a state under it, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable

import ipywidgets

from rwkvlab.errors import ArgError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.files import save_state
from rwkvlab.states.naming import folder_name, name_for, offer
from rwkvlab.states.state import State
from rwkvlab.widgets.tune_controls import LABEL, button
from rwkvlab.widgets.work import Report, Work

PURPOSE = "tuned"  # in the name of a state that nobody named
TIMES = 1000  # names that are tried


class SaveBox(ipywidgets.VBox):
    """Saves what `state()` gives under the name in its box, its layout by the suffix; a file that is there is kept."""

    def __init__(self, state: Callable[[], State | None], model: Model) -> None:
        self._state, self._model, self._offered = state, model, ""
        self.work = Work()
        self.file = ipywidgets.Text(
            placeholder="NAME.pth, .state (Ai00) or .safetensors",
            description="save as",
            layout={"width": "420px"},
            style={"description_width": LABEL},
        )
        self.file.add_class("rwkvlab-save-as")
        self.button = button("Save", "save", "write the state under this name", disabled=True)
        self.button.on_click(lambda _: self.save())
        super().__init__([ipywidgets.HBox([self.file, self.button]), self.work.caption])

    def offer(self, state: State | None) -> None:
        """Offer a name for a state, unless the person has typed one; without a state nothing can be saved."""
        self.button.disabled = state is None
        if state is not None and self.file.value in ("", self._offered):
            self._offered = self.file.value = _name(state, self._model)

    def save(self) -> None:
        """Write the state; returns at once, what came of it is shown."""
        state, path = self._state(), self.file.value.strip()
        self.work.start(lambda report: _write(report, state, path), "saving")


def _write(report: Report, state: State | None, path: str) -> str:
    if state is None:
        raise ArgError("no state to save yet: press Start first")
    if not path:
        raise ArgError("save as: need a file name ending in .pth, .state or .safetensors")
    written = save_state(state, path, overwrite=False)
    said = f"saved as {show(written, 400)[1:-1]}, {os.path.getsize(written):,} bytes"
    better = offer(state, written)
    return f"{said}; {better}" if better else said


def _name(state: State, model: Model) -> str:
    """A name that is not taken in the current folder."""
    try:
        name = name_for(state, None if state.card.name else PURPOSE, model=model, ext=".safetensors")
    except ArgError:
        try:
            name = folder_name(state if state.card.name else state.named(PURPOSE))
        except ArgError:
            name = f"{PURPOSE}.safetensors"
    stem, suffix = os.path.splitext(name)
    free = (f"{stem}-{number}{suffix}" for number in range(2, TIMES))
    return name if not os.path.exists(name) else next((one for one in free if not os.path.exists(one)), name)
