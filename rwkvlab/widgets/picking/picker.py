"""StatePicker: a table of the states on a shelf to choose one from; its traits are the chosen state and its name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import RwkvLabError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.widgets.base.buttons import bar, button, text_box
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.code import CodeButton, call, state_code, variable_of
from rwkvlab.widgets.base.whole import Whole, all_or_nothing
from rwkvlab.widgets.picking.rows import COLUMNS, Row
from rwkvlab.widgets.picking.sources import Given, Sources, given_code, same
from rwkvlab.widgets.picking.table import Table, brief

ZERO = ""  # the name of the zero state, which has no file
ZERO_LABEL = "zero (no state)"


class StatePicker(Whole, ipywidgets.VBox):
    """A table whose `state` trait is the chosen State; `observe` it, or read it in the next cell.

    state is None where the zero state is chosen, name is then "". Both can be set from Python: a name chooses from the
    shelf, a State need not be on it. What cannot be used is greyed, with the reason, and cannot be chosen.
    """

    state = traitlets.Instance(State, allow_none=True, help="The chosen State; None is the zero state.")
    name = traitlets.Unicode(ZERO, help='Its name on the shelf; "" for the zero state and for one set from Python.')
    filter = traitlets.Unicode("", help="Words that each shown row has, in its name or in what is told of it.")
    code = traitlets.Unicode("", read_only=True, help="The Python call which makes the same view.")

    @all_or_nothing
    def __init__(
        self, shelf: Given, model: Model | None = None, *, name: str | None = None, state: State | None = None,
        folders: list[str] | tuple[str, ...] = (), filter: str = "", sort: str = "", **options: Any,
    ) -> None:  # fmt: skip
        """Show a Shelf, any mapping of names to states, a folder or a list of folders; with a model, only what fits.

        name chooses at the start ("": the zero state; None: the shelf's default, else its first state), state one that
        need not be listed. folders are listed too. sort is a column's name, "-" before it for downwards. options are
        those of ipywidgets.VBox. Raises PathError if there is no such folder, ArgError for what is no shelf and for a
        name that cannot be used.
        """
        self._given = shelf
        self.sources = Sources(shelf, model, folders, "StatePicker")
        self.shelf, self.model = self.sources.base, model
        self._lock, self._quiet = threading.RLock(), False
        self._next: State | None = None
        self._listed: list[Row | None] = []
        self.table, self.caption = Table(label="states", sort=sort), Caption()
        self._words = text_box("filter", "words that a row must have", "filter")
        self._refresh = button("Refresh", "refresh", "look for new, gone and changed files", self.refresh)
        self._path = text_box("folder", "path of one more folder", "folder")
        self._add = button("Add folder", "plus", "list the states of this folder too", self._on_add)
        self._code = CodeButton()
        rows = [bar(self._words, self._refresh), self.table, self.caption, bar(self._path, self._add, self._code)]
        super().__init__(rows, **options)
        self.add_class("rwkvlab-picker")
        self.table.on_choose(self._on_table)
        traitlets.link((self, "filter"), (self._words, "value"))
        self.table.observe(lambda _: self._say(), "sort")
        self._list()
        if name is None:
            self._choose(self.sources.default)
        else:
            self.name = name
        if state is not None:
            self.state = state
        self._say(self.caption.text if self.caption.trouble else "")
        self.filter = filter

    @property
    def unusable(self) -> dict[str, str]:
        """The names of what cannot be used, each with the reason."""
        return dict(self.sources.reasons)

    def refresh(self) -> None:
        """Look for new, gone and changed files; the choice stays, anew from its file where that changed."""
        with self._lock:
            try:
                self.sources.refresh()
                trouble = self._again()
            except RwkvLabError as error:
                trouble = str(error)
            self._list()
            self._say(trouble)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Set one of the two traits without the other following."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _again(self) -> str:
        """Read the chosen state again; returns what is wrong where it cannot be."""
        if self.name == ZERO:
            return ""
        name = self.name
        try:
            state = self.sources[name]
        except RwkvLabError as error:
            with self._silence():
                self.name = ZERO
            return f"{show(name)} cannot be read any more, its state is still chosen as it was: {error}"
        if self.state is None or not same(state, self.state):
            with self._silence():
                self.state = state
        return ""

    @traitlets.validate("name")
    def _check_name(self, proposal: Any) -> str:
        """Read the state before the name changes, so that a file that cannot be read changes nothing."""
        name = proposal["value"]
        self._next = None if name == ZERO else self.sources[name]
        return name if self._next is None or name in self.sources else self._next.card.name  # another spelling of it

    @traitlets.observe("name")
    def _on_name(self, change: Any) -> None:
        if not self._quiet:
            with self._silence():
                self.state = self._next
            self._say()

    @traitlets.validate("state")
    def _check_state(self, proposal: Any) -> State | None:
        if proposal["value"] is not None and self.model is not None:
            check_fits(proposal["value"], self.model)
        return proposal["value"]

    @traitlets.observe("state")
    def _on_state(self, change: Any) -> None:
        if not self._quiet:
            with self._silence():
                self.name = ZERO
            self._say()

    @traitlets.observe("filter")
    def _on_filter(self, change: Any) -> None:
        found = self.sources.find(change["new"])
        shown = [at for at, row in enumerate(self._listed) if row is None or row.name in found]
        self.table.shown = shown if change["new"].split() else list(range(len(self._listed)))
        self._say()

    def _on_table(self, index: int) -> None:
        with self._lock:
            row = self._listed[index]
            self._choose(ZERO if row is None else row.name)

    def _on_add(self) -> None:
        with self._lock:
            try:
                count = self.sources.add(self._path.value)
            except RwkvLabError as error:
                self._say(str(error))
                return
            self._list()
            self._say()
            self.caption.say(f"{count} more from {show(self._path.value)}; {self.caption.text}")
            self._path.value = ""

    def _choose(self, name: str) -> None:
        try:
            if name == ZERO:
                self.state = None
            self.name = name
            self._say()
        except RwkvLabError as error:
            known = self.sources.reasons.get(name)
            if known is None:
                self.sources.list()  # what a file turned out to be is known now
                self._list()
            self._say(f"{show(name)} cannot be used: {brief(known or str(error))}")

    def _list(self) -> None:
        """Bring the table in line with the sources."""
        self._listed = [None, *self.sources.rows]
        cells = [((ZERO_LABEL, *[""] * (len(COLUMNS) - 1)), "")]
        cells += [(row.cells(), show(row.reason, 600)[1:-1]) for row in self.sources.rows]
        self.table.fill(COLUMNS, cells, -1)
        if self.filter:
            self._on_filter({"new": self.filter})

    def _say(self, trouble: str = "") -> None:
        """Bring the table's choice, the caption and the code in line with the traits."""
        own = self.state if self.name == ZERO else None
        at = [row.name if row is not None else ZERO for row in self._listed]
        self.table.chosen = at.index(self.name) if own is None and self.name in at else -1
        title = self.name or (ZERO_LABEL if own is None else own.card.name or own.card.recipe or "a state")
        text = f"chosen: {show(title)[1:-1]}{'' if own is None else ' (set from Python)'}"
        count, total = len(self.table.shown) - 1, len(self.sources.rows)
        text += f" · {f'{count:,} of ' if count < total else ''}{total:,} listed"
        text += f", {len(self.sources.reasons):,} cannot be used" if self.sources.reasons else ""
        self.caption.say(trouble or text, trouble=bool(trouble))
        self.set_trait("code", self._call(own))
        self._code.code = self.code

    def _call(self, own: State | None) -> str:
        arguments = [given_code(self._given)]
        arguments += [] if self.model is None else [variable_of(self.model, "model")]
        options: dict[str, Any] = {} if own is not None else {"name": self.name}
        options |= {"folders": list(self.sources.folders), "filter": self.filter, "sort": self.table.sort}
        text = call("lab.widgets.StatePicker", *arguments, **{k: v for k, v in options.items() if v or k == "name"})
        return text if own is None else f"{text[:-1]}, state={state_code(own)})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget, and for pages without a kernel the table as HTML."""
        found = super()._repr_mimebundle_(**options)
        return found if found is None else {**found, "text/html": self.table.html() + self.caption.value}
