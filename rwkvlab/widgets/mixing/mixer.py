"""StateMixer: mix any number of states by hand; its traits are the mixed state and the recipe that makes it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import RwkvLabError, show
from rwkvlab.model.engine import Model
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.code import CodeButton, call, state_code, variable_of
from rwkvlab.widgets.base.pictures import Picture, Snapshot, png_of
from rwkvlab.widgets.base.saving import SaveRow
from rwkvlab.widgets.base.whole import Whole, all_or_nothing
from rwkvlab.widgets.base.work import Report, Work
from rwkvlab.widgets.mixing.answer import MixerAnswer
from rwkvlab.widgets.mixing.controls import Controls
from rwkvlab.widgets.mixing.picture import mixture_figure
from rwkvlab.widgets.mixing.recipes import ZERO, build, check_recipe, expression
from rwkvlab.widgets.picking.sources import Given, Reader, Sources, given_code, shelf_code

HEAVY = 3_000_000  # numbers, in all states together, above which a mixture is made in the thread
COST = {"slerp": 12, "rank": 60}  # how much slower than a sum


class StateMixer(Whole, Snapshot, ipywidgets.VBox):
    """Sliders that mix states; its trait `state` is the mixed State: observe it, or read it in the next cell.

    `recipe` is how it is made, a dict as `recipes.check_recipe` describes it; it can be set too, and is {} where
    `state` was set from Python. A recipe or a state that does not fit raises and changes nothing. state is None where
    the mixture is the zero state and nothing tells its size.
    """

    state = traitlets.Instance(State, allow_none=True, help="The mixed State.")
    recipe = traitlets.Any({}, help="How it is made: weights, method, gain, layers, base, rank.")
    code = traitlets.Unicode("", read_only=True, help="The Python call which makes the same view.")

    @all_or_nothing
    def __init__(
        self, shelf: Given, model: Model | None = None, *, names: Sequence[str] | None = None,
        recipe: dict[str, Any] | None = None, state: State | None = None, prompt: str = "", template: str = "auto",
        max_tokens: int = 60, **options: Any,
    ) -> None:  # fmt: skip
        """Mix states of a Shelf, of any mapping of names to states, or of a folder.

        names are the states to begin with (None: the first two): two of them with a slider from one to the other,
        halfway. recipe begins with a mixture instead, state with one of your own. With a model, only what fits it is
        offered, and a prompt is answered, greedily, in a template ("auto": that of the states, else "world"), when a
        slider is released. options are those of ipywidgets.VBox. Raises PathError, ArgError, UnknownNameError, and
        what a file that cannot be read raises.
        """
        self._given, self.model = shelf, model
        self.sources = Sources(shelf, model, what="StateMixer")
        self.shelf = self.sources.base
        self._lock, self._quiet = threading.RLock(), False
        self._read = Reader(self.sources)
        self._next: tuple[dict[str, Any], State | None] | None = None
        if names is None:
            names = self._read.first(2) if recipe is None else []
        self._zero = None if model is None else model.zero()
        sample = self._zero or next(map(self._read, self._read.first(1)), None)
        self._shape = (1, 1, 1, 1) if sample is None else tuple(sample.wkv.shape)
        self._controls = Controls(list(self.sources), self._shape[0], min(self._shape[2:]), self._on_controls)
        self.picture, self.caption, self.work, self._code = Picture(), Caption(), Work(), CodeButton()
        self._answer = None if model is None else MixerAnswer(model, prompt, template, max_tokens, self.ask)
        self._save = SaveRow(lambda: self.state)
        self._figure: Any = None
        parts = [self._controls, self.picture, self.caption, self._answer, self.work, self._save, self._code]
        super().__init__([part for part in parts if part is not None], **options)
        self.add_class("rwkvlab-mixer")
        weights = dict.fromkeys(names, 1 / max(1, len(names)))
        self.recipe = recipe or {"weights": weights, "method": "lerp" if len(weights) == 2 else "mix"}
        if state is not None:
            self.state = state
        if prompt:
            self.ask()

    @property
    def answer(self) -> str:
        """The answer to the prompt, as far as it is written."""
        return "" if self._answer is None else self._answer.text

    @property
    def expression(self) -> str:
        """The Python call that makes the mixed state, without the widget."""
        if not self.recipe:
            return state_code(self.state)
        layers, heads, rank = self._shape[0], self._shape[1], min(self._shape[2:])
        return expression(self.recipe, self._code_of, heads, layers, rank)

    def ask(self) -> None:
        """Generate the answer to the prompt in the thread, from the state as it is; without a prompt, nothing."""
        if (box := self._answer) is not None and box.prompt.value.strip():
            self.work.start(lambda report: box.write(self.state, report), "reading the prompt")

    def snapshot(self) -> bytes | None:
        """Return the picture as it is, as PNG."""
        return None if self._figure is None else png_of(self._figure)

    @traitlets.validate("recipe")
    def _check_recipe(self, proposal: Any) -> dict[str, Any]:
        """Make the state before the recipe changes, so that one that cannot be made changes nothing."""
        if self._quiet:
            return proposal["value"]
        recipe = check_recipe(proposal["value"])
        if self._next is None or self._next[0] != recipe:
            self.work.stop()
            self._next = (recipe, build(recipe, self._read, self._zero))
        return recipe

    @traitlets.observe("recipe")
    def _on_recipe(self, change: Any) -> None:
        if not self._quiet and self._next is not None:
            with self._silence():
                self.state, self._next = self._next[1], None
            self._show()

    @traitlets.validate("state")
    def _check_state(self, proposal: Any) -> State | None:
        if proposal["value"] is not None and self.model is not None and not self._quiet:
            check_fits(proposal["value"], self.model)
        return proposal["value"]

    @traitlets.observe("state")
    def _on_state(self, change: Any) -> None:
        if not self._quiet:
            self.work.stop()
            with self._silence():
                self.recipe = {}
            self._show()

    @contextmanager
    def _silence(self) -> Any:
        """Set one of the two traits without the other following."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _on_controls(self, released: bool) -> None:
        """Take what the controls stand at: at once where that is quick, else in the thread, the last one only."""
        recipe = self._controls.recipe()
        cost = max([1, COST["slerp"] * (recipe["method"] == "slerp"), COST["rank"] * (recipe["rank"] is not None)])
        count = self._shape[0] * self._shape[1] * self._shape[2] * self._shape[3]
        if count * len(recipe["weights"]) * cost > HEAVY:
            self.work.start(lambda report: self._make(recipe, report, released), "mixing")
        elif self._take(recipe) and released:
            self.ask()

    def _make(self, recipe: dict[str, Any], report: Report, released: bool) -> str:
        """Do in the thread what is too slow for a callback."""
        try:
            recipe = check_recipe(recipe)
            ready = (recipe, build(recipe, self._read, self._zero))
        except RwkvLabError:
            if self.recipe and not report.cancel.is_set():
                self._controls.show(self.recipe)
            raise
        report.check()
        if self._take(recipe, ready) and released and self._answer and self._answer.prompt.value.strip():
            return self._answer.write(self.state, report)
        return "mixed"

    def _take(self, recipe: dict[str, Any], ready: Any = None) -> bool:
        with self._lock:
            try:
                self._next = ready
                self.recipe = recipe
                return True
            except RwkvLabError as wrong:
                self._next = None
                self.sources.list()  # what a file turned out to be is known now
                self._controls.names = list(self.sources)
                if self.recipe:
                    self._controls.show(self.recipe)
                self.caption.say(f"not mixed, all is as it was: {wrong}", trouble=True)
                return False

    def _code_of(self, name: str) -> str:
        if name != ZERO:
            return f"{shelf_code(self._given)}[{name!r}]"
        return "None" if self._zero is None else f"{variable_of(self.model, 'model')}.zero()"

    def _show(self) -> None:
        """Bring controls, picture, caption and code in line with the traits."""
        if self.recipe:
            self._controls.show(self.recipe)
            self._read.keep(self.recipe["weights"])
        names = list(self.recipe.get("weights", ()))
        parts = {name or "zero": self._zero if name == ZERO else self._read(name) for name in names}
        if self.state is None:
            self._figure = None
            self.picture.clear()
            said = "the zero state"
        else:
            said = self.state.card.recipe or self.state.card.name or "a state"
            self._figure = mixture_figure(self.state, {name: part for name, part in parts.items() if part is not None})
            self.picture.show(self._figure, f"norms of {said}, by head and by layer")
        said = show(said, 800)[1:-1]
        self.caption.say(f"mixture: {said}" if self.recipe else f"state: {said} (set from Python)")
        self.set_trait("code", self._call())
        self._code.code = f"state = {self.expression}\n{self.code}"

    def _call(self) -> str:
        arguments = [given_code(self._given)] + ([] if self.model is None else [variable_of(self.model, "model")])
        options: dict[str, Any] = {"recipe": self.recipe} if self.recipe else {}
        if self._answer is not None:
            usual = {"prompt": "", "template": "auto", "max_tokens": 60}
            now = {"prompt": self._answer.prompt.value} | {key: getattr(self._answer, key) for key in list(usual)[1:]}
            options |= {key: value for key, value in now.items() if value != usual[key]}
        text = call("lab.widgets.StateMixer", *arguments, **options)
        return text if self.recipe else f"{text[:-1]}, state={state_code(self.state)})"
