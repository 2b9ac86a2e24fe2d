"""StateGrid: a map of all heads of a state, or of two and their difference, beside the matrix of the chosen head."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from rwkvlab.errors import ArgError, show
from rwkvlab.plots.fonts import label, words
from rwkvlab.plots.heads import plot_head, plot_heads
from rwkvlab.shapes import check_range
from rwkvlab.states.fits import check_alike
from rwkvlab.states.state import State
from rwkvlab.widgets.base.pictures import Snapshot
from rwkvlab.widgets.inspecting.grid_data import NAME, Numbers, colours_told, head_told, map_of, maps_told

HERE = Path(__file__).parent


class PlaceError(ArgError, traitlets.TraitError):
    """A head that is not there was chosen; traits take back what the page sent when they see such an error."""


class StateGrid(Snapshot, anywidget.AnyWidget):
    """Maps of one number a head, layers down and heads across, and the [V,K] matrix of the head that is chosen.

    Its trait `selected` is the place (layer, head) of that head: read it, set it, observe it. Of two states both are
    shown, and other − state: their matrices have one colour scale about zero, which covers 99.5 % of the entries. In
    the page a head is chosen by a click, by drawing over the map, or by the arrow keys, Home, End, PageUp and PageDown;
    only the matrices of the chosen head are sent.
    """

    _esm = (HERE / "grid.js").read_text("utf-8")
    _css = (HERE / "grid.css").read_text("utf-8")
    selected: Any = traitlets.TraitType((0, 0), help="The chosen head: (layer, head), from 0.").tag(sync=True)
    own_scale = traitlets.Bool(False, help="Whether the difference has a colour scale of its own.")
    dark = traitlets.Bool(False, help="Whether the page is dark, which the page tells.").tag(sync=True)
    _colours = traitlets.Bytes().tag(sync=True)
    _maps = traitlets.Dict().tag(sync=True)
    _head = traitlets.Dict().tag(sync=True)

    def __init__(self, state: State, other: State | None = None, *, at: Sequence[int] = (0, 0), **options: Any) -> None:
        """Show a state, or two of one shape, and choose the head `at`; options are those of a widget.

        Raises ArgError for what is no State and for a place that is not there, MismatchError for states that differ in
        shape, architecture or base.
        """
        self._lock = threading.RLock()
        self._turn = 0
        self._take(state, other)
        at = self.check_place(at)
        super().__init__(
            selected=at, _colours=colours_told(), _maps=maps_told(self._data, self._names), _head=self._seen(at)
        )
        for name, value in options.items():
            setattr(self, name, value)
        self.observe(self._push, ["selected", "own_scale"])

    @property
    def states(self) -> tuple[State, ...]:
        """What is shown: the state; or the state, the other, and other − state."""
        return self._states

    def show(self, state: State, other: State | None = None) -> None:
        """Show another state, or two; the choice stays, or goes to the nearest head there is. Errors as above."""
        with self._lock:
            self._take(state, other)
            layer, head = (min(at, count - 1) for at, count in zip(self.selected, state.wkv.shape[:2], strict=True))
            with self.hold_sync():  # the page gets all of it at once
                self._maps = maps_told(self._data, self._names)
                self.selected = (layer, head)
                self._push()

    def overview(self, *data: Numbers, value: str | None = None, last: str | None = None) -> None:
        """Colour the maps by other numbers: one State or table for each map, as `plot_heads` takes them; none: norms.

        value: the column (None: the first number); last: that of the last map, where it differs. Raises ArgError and
        MismatchError where the tables are not of these heads.
        """
        with self._lock:
            data = data or self._states
            if len(data) != len(self._states):
                raise ArgError(f"overview: need {len(self._states)} tables, one a map, got {len(data)}")
            columns = [value] * (len(data) - 1) + [last or value]
            shape = self._matrices[0].shape[:2]
            self._data = [map_of(one, column, shape) for one, column in zip(data, columns, strict=True)]
            self._maps = maps_told(self._data, self._names)

    def check_place(self, place: Any) -> tuple[int, int]:
        """Return (layer, head) as whole numbers; raises ArgError unless such a head is there."""
        if isinstance(place, (str, bytes)) or not isinstance(place, (Sequence, np.ndarray)) or len(place) != 2:
            raise PlaceError(f"selected: need (layer, head), such as (0, 0), got {show(place)}")
        layers, heads = self._matrices[0].shape[:2]
        try:
            layer = check_range("layer", place[0], 0, layers - 1, whole=True)
            return int(layer), int(check_range("head", place[1], 0, heads - 1, whole=True))
        except ArgError as error:
            raise PlaceError(f"selected: {error}") from error

    def snapshot(self) -> bytes:
        """Return a picture (PNG) of the maps and the matrices as they are now."""
        from matplotlib.figure import Figure

        count = len(self._states)
        figure = Figure(figsize=(10.5, 4.4) if count == 1 else (15.0, 8.0))
        panels = figure.subplots(1, 2, squeeze=False) if count == 1 else figure.subplots(2, count).T
        told, parts = maps_told(self._data, self._names)["maps"], self._seen(self.selected)["parts"]
        for (above, below), one, state, drawn, part in zip(panels, self._data, self._states, told, parts, strict=True):
            plot_heads(one.table(), ax=above, limit=drawn["high"])
            above.set_title(label(drawn["name"]), **words())
            plot_head(state, self.selected[0], self.selected[1], below, limit=part["limit"])
            below.set_title(label(part["what"]), **words())
        # a constrained layout would take as long again as all the rest
        figure.subplots_adjust(0.06, 0.08 if count > 1 else 0.13, 0.97, 0.93 if count > 1 else 0.88, 0.3, 0.3)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=100)
        return file.getvalue()

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> tuple[int, int]:
        return self.check_place(proposal["value"])

    def _take(self, state: State, other: State | None) -> None:
        for name, one in (("state", state), ("other", other)):
            if not isinstance(one, State) and (one is not None or name == "state"):
                raise ArgError(f"{name}: need a State, got {show(type(one).__name__)}; open files with load_state")
        if 0 in state.wkv.shape:
            raise ArgError(f"state: it has no heads to show, its shape [L,H,V,K] is {list(state.wkv.shape)}")
        states: tuple[State, ...] = (state,)
        if other is not None:
            check_alike(state, other, "state and other")
            states = (state, other, other - state)
        self._states, self._matrices = states, [one.wkv.detach().cpu() for one in states]
        self._data = [map_of(one, None, state.wkv.shape[:2]) for one in states]
        usual = ("state", "other state", "")
        self._names = [show(one.card.name or usual[at], NAME)[1:-1] for at, one in enumerate(states[:2])]
        self._names += ["difference: second − first"] if other is not None else []

    def _seen(self, place: tuple[int, int]) -> dict[str, Any]:
        data = np.stack([wkv[place].numpy() for wkv in self._matrices])  # [n,V,K]
        self._turn += 1  # so that equal matrices are sent, too
        return {"turn": self._turn, **head_told(data, self._names, place, self.own_scale)}

    def _push(self, change: Any = None) -> None:
        with self._lock:  # two threads may choose at once: the last to come here sends what is chosen then
            self._head = self._seen(self.selected)
