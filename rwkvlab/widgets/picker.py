"""StatePicker: a drop-down of the states on a shelf; its traits are the chosen state and its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import ArgError, RwkvLabError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.fits import check_fits
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State

ZERO = ""  # the name of the zero state, which has no file


class StatePicker(ipywidgets.VBox):
    """A drop-down whose `state` trait is the chosen State; `observe` it, or read it in the next cell.

    state is None where the zero state is chosen, name is then "". Both can be set from Python: a name chooses from the
    shelf, a State need not be on it. What cannot be used is listed with the reason.
    """

    state = traitlets.Instance(State, allow_none=True, help="The chosen State; None is the zero state.")
    name = traitlets.Unicode(ZERO, help='Its name on the shelf; "" for the zero state and for one set from Python.')

    def __init__(
        self, shelf: Mapping[str, State] | str | os.PathLike[str], model: Model | None = None, **options: Any
    ) -> None:
        """Show a Shelf, any mapping of names to states, or a folder; with a model, only what fits it can be chosen.

        The shelf's default, else its first state, is chosen. options are those of ipywidgets.VBox. Raises PathError if
        there is no such folder, ArgError for anything else.
        """
        if isinstance(shelf, (str, os.PathLike)):
            shelf = Shelf(shelf, model)
        if isinstance(shelf, Shelf) and model is not None and shelf.model is not model:
            shelf = shelf.for_model(model)
        if not isinstance(shelf, Mapping):
            raise ArgError(f"StatePicker: need a Shelf, a mapping or a folder, got {show(type(shelf).__name__)}")
        self.shelf, self.model = shelf, model
        self.unusable = dict(getattr(shelf, "unreadable", {})) | _unfit(shelf, model)
        self._names = [name for name in shelf if name not in self.unusable]
        self._next: State | None = None
        self._quiet = False
        self._filter = ipywidgets.Text(placeholder="part of a name", description="filter")
        self._menu = ipywidgets.Dropdown(options=self._options(self._names), value=ZERO, description="state")
        self._caption = ipywidgets.Label()
        self._caption.add_class("rwkvlab-caption")
        rows = [self._filter, self._menu, self._caption]
        if self.unusable:
            # a disabled text box: names and reasons can be neither HTML nor LaTeX there
            text = "\n".join(f"{show(name)[1:-1]}: {show(why, 400)[1:-1]}" for name, why in self.unusable.items())
            layout = ipywidgets.Layout(width="100%")
            rows.append(ipywidgets.Textarea(text, description="unusable", disabled=True, rows=4, layout=layout))
        super().__init__(rows, **options)
        self._filter.observe(self._on_filter, "value")
        self._menu.observe(self._on_menu, "value")
        first = getattr(shelf, "default", None) or next(iter(self._names), ZERO)
        self._choose(first if first in self._names else ZERO)
        self._say()

    @traitlets.validate("name")
    def _check_name(self, proposal: Any) -> str:
        """Read the state before the name changes, so that a file that cannot be read changes nothing."""
        name = proposal["value"]
        if name in self.unusable:
            raise ArgError(f"name: {show(name)} cannot be used: {self.unusable[name]}")
        if name not in ("", *self.shelf) and not isinstance(self.shelf, Shelf):
            raise ArgError(f"name: no state {show(name)} here; there are {show(', '.join(self._names), 200)}")
        self._next = None if name == ZERO else self.shelf[name]
        if self._next is not None and self.model is not None:
            check_fits(self._next, self.model)
        return name

    @traitlets.observe("name")
    def _on_name(self, change: Any) -> None:
        if not self._quiet:
            self._quiet = True
            self.state = self._next
            self._quiet = False
            self._say()

    @traitlets.validate("state")
    def _check_state(self, proposal: Any) -> State | None:
        if proposal["value"] is not None and self.model is not None:
            check_fits(proposal["value"], self.model)
        return proposal["value"]

    @traitlets.observe("state")
    def _on_state(self, change: Any) -> None:
        if not self._quiet:
            self._quiet = True
            self.name = ZERO
            self._quiet = False
            self._say()

    def _on_menu(self, change: Any) -> None:
        if not self._quiet and change["new"] is not None:
            self._choose(change["new"])

    def _on_filter(self, change: Any) -> None:
        text = change["new"]
        found = self.shelf.find(text) if isinstance(self.shelf, Shelf) else [n for n in self._names if text in n]
        self._quiet = True
        self._menu.options = self._options([name for name in self._names if name in found])
        self._quiet = False
        self._say()

    def _choose(self, name: str) -> None:
        try:
            if name == ZERO:
                self.state = None
            self.name = name
        except RwkvLabError as error:
            self._say(f"{show(name)} cannot be used: {show(error, 400)[1:-1]}")

    def _say(self, trouble: str = "") -> None:
        """Bring the drop-down and the caption in line with the traits."""
        known = {name for _, name in self._menu.options}
        own = self.state if self.name == ZERO else None
        self._quiet = True
        self._menu.value = self.name if own is None and self.name in known else None
        self._quiet = False
        title = self.name or ("zero" if own is None else own.card.name or own.card.recipe or "a state")
        text = trouble or f"chosen: {show(title)[1:-1]}{'' if own is None else ' (set from Python)'}"
        # the label is typeset as LaTeX where it can be
        self._caption.value = text.replace("$", "＄").replace("\\", "＼")

    @staticmethod
    def _options(names: list[str]) -> list[tuple[str, str]]:
        return [("zero", ZERO), *((show(name)[1:-1], name) for name in names)]


def _unfit(shelf: Mapping[str, State], model: Model | None) -> dict[str, str]:
    """Return why entries of a mapping do not fit the model; a Shelf knows it by itself."""
    reasons: dict[str, str] = {}
    if model is None or isinstance(shelf, Shelf):
        return reasons
    for name in shelf:
        try:
            check_fits(shelf[name], model)
        except RwkvLabError as error:
            reasons[name] = str(error)
    return reasons
