"""SaveRow: a file name, a button that writes a state under it and never over a file, and what came of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import ipywidgets

from rwkvlab.errors import ArgError, SaveError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.files import save_state
from rwkvlab.states.naming import folder_name, name_for, offer
from rwkvlab.states.render import size_text
from rwkvlab.states.state import State
from rwkvlab.widgets.base.buttons import bar, button, text_box
from rwkvlab.widgets.base.work import Report, Work

TIMES = 1000  # names that are tried


class SaveRow(ipywidgets.VBox):
    """Saves what `state()` gives under the name in its box, its layout by the suffix; a file that is there is kept.

    saved is the last file that was written, "" before.
    """

    def __init__(self, state: Callable[[], State | None], model: Model | None = None) -> None:
        self._state, self._model, self._offered, self.saved = state, model, "", ""
        self.work = Work()
        self.file = text_box("save-as", "NAME.safetensors, .pth or .state (Ai00)", "save as")
        self.file.layout.width = "420px"
        self.button = button("Save", "save", "write the state to this file", self.save)
        super().__init__([bar(self.file, self.button), self.work.caption])
        self.add_class("rwkvlab-save-row")

    def offer(self, state: State | None, purpose: str) -> None:
        """Offer a name for a state, unless the person has typed one; without a state nothing can be saved.

        purpose stands in the name of a state that nobody named.
        """
        self.button.disabled = state is None
        if state is not None and self.file.value in ("", self._offered):
            self._offered = self.file.value = _free_name(state, self._model, purpose)

    def save(self) -> None:
        """Write the state; returns at once, what came of it is shown."""
        state, path = self._state(), os.path.expanduser(self.file.value.strip())
        self.work.start(lambda report: self._write(report, state, path), "saving")

    def _write(self, report: Report, state: State | None, path: str) -> str:
        if state is None:
            raise ArgError("save as: the zero state is not worth a file; there is no other yet")
        if not path:
            raise ArgError("save as: need a file name ending in .safetensors, .pth or .state")
        if os.path.lexists(path) and not os.path.isdir(path):
            raise SaveError(f"{show(path)}: is there already and stays as it is; choose another name")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            written = save_state(state, path, overwrite=False)
        self.saved = str(written)
        told = [show(warning.message, 300)[1:-1] for warning in heard]
        told += [better] if (better := offer(state, written)) else []
        return "; ".join([f"saved as {show(written, 400)[1:-1]}, {size_text(os.path.getsize(written))}", *told])


def _free_name(state: State, model: Model | None, purpose: str) -> str:
    """Return a name by the convention, as far as the state can have one, that is not taken in the current folder."""
    try:
        name = name_for(state, None if state.card.name else purpose, model=model, ext=".safetensors")
    except ArgError:
        try:
            name = folder_name(state if state.card.name else state.named(purpose))
        except ArgError:
            name = f"{purpose}.safetensors"
    stem, suffix = os.path.splitext(name)
    free = (f"{stem}-{number}{suffix}" for number in range(2, TIMES))
    return name if not os.path.exists(name) else next((one for one in free if not os.path.exists(one)), name)
