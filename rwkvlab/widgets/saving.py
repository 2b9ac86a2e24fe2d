"""SaveRow: a file name and a button that writes a state, and never over a file that is there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import ipywidgets

from rwkvlab.errors import RwkvLabError, SaveError, show
from rwkvlab.states.files import save_state
from rwkvlab.states.render import size_text
from rwkvlab.states.state import State
from rwkvlab.widgets.buttons import bar, button, text_box
from rwkvlab.widgets.captions import Caption


class SaveRow(ipywidgets.VBox):
    """A row that saves what `state()` gives, as the suffix of the name says; `saved` is the last file, or ""."""

    def __init__(self, state: Callable[[], State | None]) -> None:
        self._state, self.saved = state, ""
        self.path = text_box("file", "name.safetensors, .pth or .state", "file")
        self.button = button("Save", "save", "write the state to this file", self.save)
        self.caption = Caption()
        super().__init__([bar(self.path, self.button, self.caption)])
        self.add_class("rwkvlab-save-row")

    def save(self) -> None:
        """Write the state, and say what came of it."""
        path = os.path.expanduser(self.path.value.strip())
        try:
            state = self._state()
            if state is None:
                raise SaveError("the zero state is not worth a file: choose a state first")
            if not path:
                raise SaveError("type a file name first, such as mixed.safetensors")
            if os.path.lexists(path) and not os.path.isdir(path):
                raise SaveError(f"{show(path)}: is there already and stays as it is; choose another name")
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                self.saved = str(save_state(state, path, overwrite=False))
        except RwkvLabError as error:
            self.caption.say(str(error), trouble=True)
            return
        size = size_text(os.path.getsize(self.saved))
        told = "".join(f"; {show(warning.message, 300)[1:-1]}" for warning in heard)
        self.caption.say(f"saved: {show(self.saved, 300)[1:-1]}, {size}{told}")
