"""StateInspector: a state head by head, alone or beside another: maps, a matrix, its spectrum and its half-life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import ArgError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.fits import check_alike
from rwkvlab.states.state import State
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.code import CodeButton, call
from rwkvlab.widgets.base.later import Later
from rwkvlab.widgets.base.pictures import Picture, Snapshot
from rwkvlab.widgets.base.whole import Whole, all_or_nothing
from rwkvlab.widgets.base.work import Report, Work
from rwkvlab.widgets.inspecting.grid import StateGrid
from rwkvlab.widgets.inspecting.head import OF_ONE, OF_TWO, TEXT, Head
from rwkvlab.widgets.inspecting.menus import NONE, NumberMenus, StateMenu, TextMenu
from rwkvlab.widgets.inspecting.numbers import Numbers
from rwkvlab.widgets.inspecting.states import Given

FIRST, CALM = 0.04, 0.3  # seconds without another choice before the chosen head is described, and then drawn
NO_MODEL = "How long a head lasts can be seen with a model: StateInspector(state, model=model)"


class StateInspector(Whole, Snapshot, ipywidgets.VBox):
    """A state, or two and their difference: all heads at a glance, and the one that is chosen in full.

    Its main trait is `selected`, the place (layer, head). `state` and `other` (None: only one is shown) can be set, to
    a State or a name on the shelf, and observed too; `overview` and `difference` are what the maps show. With a model a
    text is read from each state, in the background, to see how long what every head holds lasts; what
    `influence` found is in `numbers.lasting`, by state.
    """

    selected: Any = traitlets.TraitType((0, 0), help="The chosen head: (layer, head), from 0.")
    state: Any = traitlets.TraitType(help="The State that is looked into.")
    other = traitlets.Any(help="The State beside it, or None.")
    overview = traitlets.Unicode("norm", help=f"What the maps of the states show: {', '.join(OF_ONE)}.")
    difference = traitlets.Unicode("norm", help=f"What the map of the difference shows: {', '.join(OF_TWO)}.")
    text = traitlets.Unicode(TEXT, help="The text that is read to see how long heads last.")

    @all_or_nothing
    def __init__(
        self,
        state: State | str,
        other: State | str | None = None,
        *,
        model: Model | None = None,
        shelf: Mapping[str, State] | None = None,
        at: Sequence[int] = (0, 0),
        **traits: Any,
    ) -> None:
        """Show states, each a State or, with a shelf, its name there; with a shelf others can be picked in the page.

        traits: overview, difference, text, or those of a VBox. Raises ArgError for what is no State and no such head,
        UnknownNameError for a name that is not on the shelf, MismatchError where states do not fit the model or each
        other.
        """
        self.model, self.shelf, self._given, self.numbers = model, shelf, Given(model, shelf), Numbers()
        first, second = self._given.read("state", state), self._given.read("other", other)
        self.grid = StateGrid(first, second, at=at)
        super().__init__(state=first, other=second, selected=self.grid.selected, **traits)
        self._caption, self._picture, self._code = Caption(), Picture(), CodeButton()
        self._caption.add_class("rwkvlab-inspector-caption")
        self._work, self._drawing = Work(), Later()
        self._work.layout.display = "none"  # until it has something to do
        self._menus = self._make()
        traitlets.link((self.grid, "selected"), (self, "selected"))
        self.grid.observe(self._draw, "dark")
        self.observe(self._draw, "selected")
        self.observe(self._on_states, ["state", "other"])
        self.observe(self._on_numbers, ["overview", "difference", "text"])
        self._tell()
        self._on_numbers()
        self._draw()

    @property
    def code(self) -> str:
        """The Python call which makes this view."""
        usual = {"overview": "norm", "difference": "norm", "text": TEXT}
        more = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return call("lab.widgets.StateInspector", *self._given.code(*self._pair), at=self.selected, **more)

    def show(self, state: State | str, other: State | str | None = None) -> None:
        """Look into other states in one step, so that they need not fit those before. Raises as above."""
        first, second = self._given.read("state", state), self._given.read("other", other)
        if second is not None:
            check_alike(first, second, "state and other")
        with self.hold_trait_notifications():
            self.state, self.other = first, second

    def measure(self, text: str | None = None) -> None:
        """Read a text (None: the same) from each state once more, to see how long heads last; returns at once."""
        self.numbers.forget_lasting()
        if text is not None and text != self.text:
            self.text = text
        else:
            self._on_numbers()

    def snapshot(self) -> bytes:
        """Return a picture (PNG) of the maps and the matrices."""
        return self.grid.snapshot()

    @property
    def _pair(self) -> list[State]:
        return [one for one in (self.state, self.other) if one is not None]

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> tuple[int, int]:
        return self.grid.check_place(proposal["value"])

    @traitlets.validate("state", "other")
    def _check_state(self, proposal: Any) -> State | None:
        name = proposal["trait"].name
        state, beside = self._given.read(name, proposal["value"]), self.other if name == "state" else self.state
        if isinstance(state, State) and isinstance(beside, State):
            check_alike(state, beside, "state and other")
        return state

    @traitlets.validate("overview", "difference")
    def _check_numbers(self, proposal: Any) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        if value not in (known := OF_ONE if name == "overview" else OF_TWO):
            raise ArgError(f"{name}: need one of {', '.join(known)}, got {show(value)}")
        if value == "half_life" and self.model is None:
            raise ArgError(f"overview: a half-life needs a model; {NO_MODEL}")
        return value

    def _make(self) -> list[StateMenu]:
        menus = []
        if self.shelf is not None:
            for name, empty in (("state", ""), ("other", "none: one state alone")):
                menus.append(StateMenu(self.shelf, name, partial(self._pick, name), empty))
        last = Caption(NO_MODEL) if self.model is None else TextMenu(self)
        shown = [ipywidgets.HBox(menus), NumberMenus(self, self.grid), self.grid, self._caption, self._picture]
        self.children = [*shown, last, self._work, self._code]
        self.add_class("rwkvlab-inspector")
        return menus

    def _pick(self, name: str, key: str) -> None:
        """Look into the state that was chosen from a menu, or say why that cannot be."""
        try:
            setattr(self, name, None if key == NONE and name == "other" else key)
        except Exception as error:  # whatever a file may be
            self._caption.say(error, trouble=True)
            self._tell()

    def _on_states(self, change: Any = None) -> None:
        if tuple(self.grid.states[:2]) != tuple(self._pair):
            self.numbers.keep(self._pair)
            self._given.keep(self._pair)
            self.grid.show(*self._pair)
            self._on_numbers()
            self._draw()

    def _on_numbers(self, change: Any = None) -> None:
        """Colour the maps: at once by norms, which are known; the rest is made in the background."""
        if change is not None and change["name"] == "text":
            self.numbers.forget_lasting()
        self._tell()
        if known := self.overview == self.difference == "norm":
            self.grid.overview()
        if not known or (self.model is not None and any(one not in self.numbers.lasting for one in self._pair)):
            self._work.layout.display = ""
            self._work.start(self._update, "reading the states")

    def _tell(self) -> None:
        """Bring menus and code in line with the traits."""
        for menu, one in zip(self._menus, (self.state, self.other), strict=False):
            menu.tell(NONE if one is None else self._given.name(one) or None)
        self._code.code = self.code

    def _update(self, report: Report) -> str:
        """Make what the maps show, then read the text from each state; what is known already is not made again."""
        pair, said = list(self._pair), "the maps are drawn"
        self._paint()
        if self.model is not None:
            for at, one in enumerate(pair):
                words = f"reading the text from {show(one.card.name or 'the state', 40)}"
                found = self.numbers.read(self.model, self.text, one, report.part(at, len(pair), words))
                said = repr(found).split("\n")[0]
                self._draw()
            self._paint()
        return said

    def _paint(self) -> None:
        states, one, two = asked = self.grid.states, self.overview, self.difference
        maps = self.numbers.maps(*asked)
        if maps is not None and asked == (self.grid.states, self.overview, self.difference):  # nothing new meanwhile
            self.grid.overview(*maps, value=one, last=two if len(states) > 1 else None)

    def _draw(self, change: Any = None) -> None:
        self._drawing.start(self._draw_head)

    def _draw_head(self, cancel: Event) -> None:
        """Say what the chosen head is like, then draw it; its matrix is on its way to the page and goes first."""
        if cancel.wait(FIRST):
            return
        try:
            self._tell()
            place = self.selected
            head = Head(self._pair, place, self.numbers.lasting)
            self._caption.say(head.text)
            if not cancel.wait(CALM):
                alt = f"singular values of layer {place[0]}, head {place[1]}"
                alt += ", and how long it lasts" if head.lasting else ""
                self._picture.show(head.figure(self.grid.dark), alt)
        except Exception as error:  # a thread has no one above it who could be told
            self._caption.say(error, trouble=True)
