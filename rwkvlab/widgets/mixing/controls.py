"""The controls of a mixer: one row a state, the way they are mixed, and what part of the mixture is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import ipywidgets

from rwkvlab.errors import show
from rwkvlab.widgets.base.buttons import bar, button
from rwkvlab.widgets.base.slider import Slider
from rwkvlab.widgets.mixing.recipes import ZERO

PAIR = ("lerp", "slerp")
WAYS = [
    *(("mix: a weighted mean or sum", "mix"), ("lerp: straight from one to another", "lerp")),
    ("slerp: along the arc, head by head", "slerp"),
]
TELL = Callable[[bool], object]


class MixerRow(ipywidgets.HBox):
    """A state by name, its weight, and a button that takes the row away."""

    def __init__(self, names: list[str], tell: TELL, remove: Callable[[MixerRow], object]) -> None:
        options = [("zero (no state)", ZERO), *((show(name, 60)[1:-1], name) for name in names)]
        self.menu = ipywidgets.Dropdown(options=options, layout=ipywidgets.Layout(width="440px"))
        self.weight = Slider(label="weight")
        self.remove = button("Remove", "trash", "take this state out of the mixture", lambda: remove(self))
        super().__init__([self.menu, self.weight, self.remove])
        self.layout.align_items = "center"
        self.add_class("rwkvlab-mixer-row")
        self.before = self.menu.value
        self.menu.observe(lambda _: tell(True), "value")
        self.weight.observe(lambda _: tell(False), "value")
        self.weight.on_release(lambda: tell(True))


class Controls(ipywidgets.VBox):
    """All controls of a recipe; `tell(released)` is called when a person moved one.

    `recipe()` is what they stand at, `show(recipe)` sets them without a word to `tell`.
    """

    def __init__(self, names: list[str], layers: int, rank: int, tell: TELL) -> None:
        self.names, self.layers, self.rank = names, layers, rank
        self._tell, self._quiet = tell, False
        self.way = ipywidgets.Dropdown(options=WAYS, description="method", layout=ipywidgets.Layout(width="360px"))
        self.normal = ipywidgets.Checkbox(True, description="normalise weights", indent=False)
        self.normal.tooltip = "divide the weights by their sum; without it they are taken as they are"
        self.normal.layout.width = "auto"
        self.add = button("Add a state", "plus", "one more state for the mixture", self._on_add)
        self.way_t = Slider(label="from → to")
        self.way_t.add_class("rwkvlab-t")
        self.gain = Slider(label="gain", max=2.0, value=1.0)
        top = max(1, layers - 1)
        self.span = ipywidgets.IntRangeSlider(value=(0, top), min=0, max=top, description="layers", disabled=layers < 2)
        self.base = ipywidgets.Dropdown(options=[("zero", "zero"), ("the first state", "first")], description="others")
        self.base.layout.width = "220px"
        self.keep = Slider(label="rank", min=0.0, max=float(rank), step=1.0, value=float(rank))
        for name in ("way", "normal", "gain", "span", "base", "keep"):
            getattr(self, name).add_class(f"rwkvlab-{name}")
        self.way.disabled = not names
        self._rows, self._made = ipywidgets.VBox([]), list[MixerRow]()  # those shown, and besides those put aside
        super().__init__(
            [
                *(bar(self.way, self.normal, self.add), self._rows, self.way_t),
                *(bar(self.gain, self.keep), bar(self.span, self.base)),
            ]
        )
        for menu in (self.way, self.normal, self.base):
            menu.observe(lambda _: self._on_menu(), "value")
        self.span.observe(lambda _: self._moved(False), "value")
        for slider in (self.way_t, self.gain, self.keep):
            slider.observe(lambda _: self._moved(False), "value")
            slider.on_release(lambda: self._moved(True))

    @property
    def rows(self) -> tuple[MixerRow, ...]:
        """The rows, one a state."""
        return self._rows.children

    def recipe(self) -> dict[str, Any]:
        """Return the recipe that the controls stand at."""
        weights = {row.menu.value: row.weight.value for row in self.rows}
        method = self.way.value
        if method in PAIR and len(weights) == 2:
            t = self.way_t.value
            weights = dict(zip(weights, (1.0 - t, t), strict=True))
        elif not self.normal.value:
            method = "sum"
        low, high = self.span.value
        rank = round(self.keep.value)
        return {
            **{"weights": weights, "method": method, "gain": self.gain.value},
            **{"layers": None if self.layers < 2 else [low, high], "base": self.base.value},
            "rank": rank if rank < self.rank else None,
        }

    def show(self, recipe: Mapping[str, Any]) -> None:
        """Set all controls to a checked recipe."""
        with self._silence():
            weights, method = recipe["weights"], recipe["method"]
            while len(self._made) < len(weights):
                self._made.append(MixerRow(self.names, self._moved, self._on_remove))
            rows = self._made[: len(weights)]
            for row, (name, weight) in zip(rows, weights.items(), strict=True):
                row.weight.min, row.weight.max = (-1.0, 2.0) if method == "sum" else (0.0, max(1.0, weight))
                row.menu.value, row.weight.value, row.before = name, weight, name
                row.menu.description = "state" if method not in PAIR else "to" if row is rows[1] else "from"
                row.weight.layout.display = "none" if method in PAIR else ""
                row.remove.disabled = len(weights) < 2
            if rows != list(self.rows):
                self._rows.children = rows
            self.way.value = "mix" if method == "sum" else method
            if method not in PAIR:
                self.normal.value = method == "mix"
            self.normal.disabled = method in PAIR
            self.way_t.layout.display = "" if method in PAIR else "none"
            if method in PAIR:
                self.way_t.value = list(weights.values())[1]
            self.gain.value = recipe["gain"]
            self.base.value = recipe["base"]
            self.keep.value = float(self.rank if recipe["rank"] is None else min(recipe["rank"], self.rank))
            if self.layers > 1:
                self.span.value = tuple(recipe["layers"] or (0, self.layers - 1))
            self.base.disabled = recipe["layers"] in (None, [0, self.layers - 1])

    @contextmanager
    def _silence(self) -> Any:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _moved(self, released: bool) -> None:
        if self._quiet:
            return
        # a name that stands in another row already trades places with it
        for row in self.rows:
            other = [one for one in self.rows if one is not row and one.menu.value == row.menu.value]
            if row.menu.value != row.before and other:
                with self._silence():
                    other[0].menu.value = other[0].before = row.before
            row.before = row.menu.value
        self._tell(released)

    def _on_menu(self) -> None:
        if self._quiet:
            return
        with self._silence():
            if self.way.value in PAIR and len(self.rows) != 2:
                self._make_pair()
        self._moved(True)

    def _make_pair(self) -> None:
        """Leave the first two states, or find a second one."""
        kept = [row.menu.value for row in self.rows][:2]
        kept += [self._unused(kept)][: 2 - len(kept)]
        t = self.way_t.value
        self.show(self.recipe() | {"weights": dict(zip(kept, (1.0 - t, t), strict=True)), "method": self.way.value})

    def _unused(self, used: list[str]) -> str:
        return next((name for name in [*self.names, ZERO] if name not in used), ZERO)

    def _on_add(self) -> None:
        recipe = self.recipe()
        used = list(recipe["weights"])
        if (name := self._unused(used)) in used:
            return
        if recipe["method"] in PAIR:
            recipe["method"] = "mix"
        recipe["weights"][name] = 0.0 if used else 1.0
        self._take(recipe)

    def _on_remove(self, row: MixerRow) -> None:
        recipe = self.recipe()
        del recipe["weights"][row.menu.value]
        weights = recipe["weights"]
        if recipe["method"] in PAIR:
            recipe["method"] = "mix"
        if recipe["method"] == "mix" and weights and not any(weights.values()):
            weights[next(iter(weights))] = 1.0
        self._take(recipe)

    def _take(self, recipe: dict[str, Any]) -> None:
        self.show(recipe)
        self._tell(True)
