"""The menus of a StateInspector: which states, what the maps show, and the text that is read for the half-lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import show
from rwkvlab.states.state import State
from rwkvlab.widgets.inspecting.head import OF_ONE, OF_TWO

NONE = ""  # the choice of no second state


class StateMenu(ipywidgets.Dropdown):
    """A drop-down of the names on a shelf; what is chosen in the page goes to `choose(name)`.

    `tell(name)` shows a choice that was made elsewhere; None: of a state that is not on the shelf.
    """

    def __init__(self, shelf: Mapping[str, State], title: str, choose: Callable[[str], None], empty: str = "") -> None:
        names = [(show(str(name), 60)[1:-1], name) for name in shelf]
        super().__init__(options=[*([(empty, NONE)] if empty else []), *names], value=None, description=title)
        self._choose, self._telling = choose, False
        self.observe(self._on_value, "value")

    def tell(self, name: str | None) -> None:
        """Show a name as chosen, without choosing it again."""
        self._telling = True
        try:
            self.value = name if name in {value for _, value in self.options} else None
        finally:
            self._telling = False

    def _on_value(self, change: Any) -> None:
        if not self._telling and change["new"] is not None:
            self._choose(change["new"])


class NumberMenus(ipywidgets.HBox):
    """What the maps show, of the states and of the difference, and whether the difference has its own scale."""

    def __init__(self, inspector: Any, grid: Any) -> None:
        mine = {said: name for name, said in OF_ONE.items() if name != "half_life" or inspector.model is not None}
        self._one = ipywidgets.Dropdown(options=mine, description="maps show", value=inspector.overview)
        both = {said: name for name, said in OF_TWO.items()}
        self._two = ipywidgets.Dropdown(options=both, description="and show", value=inspector.difference)
        self._own = ipywidgets.Checkbox(
            grid.own_scale, description="the difference on a scale of its own", indent=False
        )
        self._one.tooltip = "the number that colours each head in the maps of the states"
        self._two.tooltip = "the number that colours each head in the map of the difference"
        super().__init__([self._one, self._two, self._own])
        self.layout.flex_flow = "row wrap"
        self.add_class("rwkvlab-menus")
        traitlets.link((inspector, "overview"), (self._one, "value"))
        traitlets.link((inspector, "difference"), (self._two, "value"))
        traitlets.link((grid, "own_scale"), (self._own, "value"))
        inspector.observe(self._tell, "other")
        self._tell({"new": inspector.other})

    def _tell(self, change: Any) -> None:
        for menu in (self._two, self._own):
            menu.layout.display = "none" if change["new"] is None else ""


class TextMenu(ipywidgets.HBox):
    """The text that is read to see how long heads last, and the button that has it read."""

    def __init__(self, inspector: Any) -> None:
        self._area = ipywidgets.Textarea(inspector.text, description="text", rows=2)
        self._area.layout.width = "min(100%, 560px)"
        self._button = ipywidgets.Button(description="Measure half-lives", icon="clock-o")
        self._button.tooltip = "read this text from each state, and see how long what its heads hold lasts"
        self._button.layout.width = "auto"
        super().__init__([self._area, self._button])
        self.layout.flex_flow = "row wrap"
        self.add_class("rwkvlab-reading")
        self._button.on_click(lambda _: inspector.measure(self._area.value))
        inspector.observe(lambda change: setattr(self._area, "value", change["new"]), "text")
