"""TunePanel: tunes a state in front of one's eyes; its trait is the state that came out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import ArgError, Cancelled, show
from rwkvlab.model.engine import Model
from rwkvlab.model.tuning import TuningJob, start_tuning
from rwkvlab.model.tuning.plan import TuningPlan, tuning_plan
from rwkvlab.states.fits import check_fits
from rwkvlab.states.state import State
from rwkvlab.widgets.base.buttons import bar, button
from rwkvlab.widgets.base.code import CodeButton
from rwkvlab.widgets.base.pictures import Snapshot, png_of
from rwkvlab.widgets.base.saving import SaveRow
from rwkvlab.widgets.base.whole import Whole, all_or_nothing
from rwkvlab.widgets.base.work import Report, Work
from rwkvlab.widgets.tuning.controls import controls
from rwkvlab.widgets.tuning.data import examples_of, traits_of
from rwkvlab.widgets.tuning.samples import Samples
from rwkvlab.widgets.tuning.settings import DATA, SETTINGS, SOURCE_OF, TuneSettings
from rwkvlab.widgets.tuning.view import LOOK, RunView

NOTHING = "no examples yet: paste lines, name a JSONL file, or set .examples from Python"


class TunePanel(Whole, Snapshot, TuneSettings, ipywidgets.VBox):
    """A panel that tunes a state on examples; its `state` trait is the best state of the last run: read, observe, save.

    state is None until a run ends or a State is set from Python; where `go_on` is ticked the next run begins from it,
    else from zeros (to set a state from Python ticks it). The settings are traits too: those of `tune` (steps, lr,
    batch, held_out as a share with 0 for none, seed, template, teacher as a prompt with "" for none) and the data:
    source ("given", "file", "pasted"), examples, path, text. `job` is the TuningJob of the last run, or None; `plan`
    what is known of the next one before it starts, or None; `tune_code` the call of `lab.tune` that it stands for.
    """

    @all_or_nothing
    def __init__(
        self,
        model: Model,
        examples: Sequence[Any] | str | os.PathLike[str] | None = None,
        *,
        state: State | None = None,
        **settings: Any,
    ) -> None:
        """Show a panel for a list of examples, or for the path of a JSONL file; nothing is trained before Start.

        state is where the first run begins. settings are the traits of the panel (steps=, lr=, text= …) and options of
        ipywidgets.VBox. Raises ArgError for what is no model or no list, MismatchError for a state that does not fit.
        """
        if not isinstance(model, Model):
            raise ArgError(f"TunePanel: need a Model, got {show(type(model).__name__)}; open one with lab.load_model")
        if unknown := sorted(name for name in settings if name not in (*DATA, *SETTINGS) and not self.has_trait(name)):
            raise TypeError(f"TunePanel: has no setting {unknown[0]!r}; it has {', '.join((*SETTINGS, *DATA))}")
        traits = traits_of(examples) | {name: settings.pop(name) for name in (*DATA, *SETTINGS) if name in settings}
        source = traits.pop("source", next((SOURCE_OF[name] for name in SOURCE_OF if traits.get(name)), "pasted"))
        self.model: Model = model
        self.job: TuningJob | None = None
        self.plan: TuningPlan | None = None
        self.work, self.looking, self._view = Work(), Work(), RunView()
        self._taking, self._lock, self._model_taken = False, threading.Lock(), threading.Lock()
        self._codes, self._save = (CodeButton(), CodeButton()), SaveRow(lambda: self.state, model)
        self._save.offer(None, "tuned")
        super().__init__(**settings)
        self.add_class("rwkvlab-tune")
        for name, value in traits.items():
            setattr(self, name, value)
        self.source = source
        if state is not None:
            self.state = state
        self._begin = button("Start", "play", "tune with these settings, in a thread of its own", self.start)
        self._begin.button_style = "primary"
        self.children = self._lay_out()
        self.work.observe(self._on_running, "running")
        self.observe(self._on_setting, [*SETTINGS, *DATA])
        self._on_source()
        self._look()

    def start(self) -> None:
        """Begin a run with the settings as they are; returns at once. While one runs nothing happens."""
        with self._lock:
            if self.work.wait(0):
                data, options = self.data(), self.options()
                self.work.start(lambda report: self._run(report, data, options), "reading the examples")

    def stop(self) -> None:
        """Let the run end after the step in hand, its best state kept; returns at once."""
        self.work.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, at most `timeout` seconds; returns whether nothing does."""
        return self.work.wait(timeout)

    def snapshot(self) -> bytes | None:
        """Return the curve as PNG; None before the first step."""
        return None if self._view.figure is None else png_of(self._view.figure)

    def _lay_out(self) -> tuple[ipywidgets.Widget, ...]:
        made = controls(self)
        self._boxes = {source: made[name] for name, source in SOURCE_OF.items() if name in made}
        numbers = bar(*(made[name] for name in ("steps", "lr", "batch", "held_out", "seed", "template", "go_on")))
        distil = ipywidgets.Accordion([made["teacher"]], titles=("a teacher's prompt, to distil (optional)",))
        names = ("this panel in Python:", "this run in Python:")
        codes = [bar(ipywidgets.Label(name), code) for name, code in zip(names, self._codes, strict=True)]
        self.looking.caption.add_class("rwkvlab-tune-plan")
        parts = [made["source"], *self._boxes.values(), self.looking.caption, numbers, distil]
        stop, progress, said = self.work.children
        running = ipywidgets.VBox([bar(self._begin, stop, progress), said])
        running.add_class("rwkvlab-work")
        return (*parts, running, self._view, self._save, ipywidgets.VBox(codes))

    @traitlets.validate("state")
    def _check_state(self, proposal: Any) -> State | None:
        if proposal["value"] is not None:
            check_fits(proposal["value"], self.model)
        return proposal["value"]

    @traitlets.observe("state")
    def _on_state(self, change: Any) -> None:
        if not self._taking:
            self.go_on = change["new"] is not None
        self._save.offer(change["new"], "tuned")
        self._write_codes()

    def _on_setting(self, change: Any) -> None:
        name = change["name"]
        if change["new"] and name in SOURCE_OF:
            self.source = SOURCE_OF[name]
        if name == "source":
            self._on_source()
        self._write_codes()
        if name not in ("steps", "lr", "go_on"):
            self._look()

    def _on_source(self) -> None:
        for source, box in self._boxes.items():
            box.layout.display = None if source == self.source else "none"
        self._write_codes()

    def _on_running(self, change: Any) -> None:
        self._begin.disabled = change["new"]

    def _write_codes(self) -> None:
        self._codes[0].code, self._codes[1].code = self.code, self.tune_code

    def _look(self) -> None:
        """Tell what the next run would read and need; while one runs, that waits for its end."""
        data, options = self.data(), self.options()
        self.looking.start(lambda report: self._tell_plan(report, data, options), "reading the examples")

    def _tell_plan(self, report: Report, data: tuple[Any, ...], options: dict[str, Any]) -> str:
        self.plan = None
        named = {name: options[name] for name in ("held_out", "batch", "seed", "template")}
        with self._alone(report, self.looking):
            if not (examples := examples_of(*data)):
                return NOTHING
            self.plan = tuning_plan(self.model, examples, teacher=options["teacher"] is not None, **named)
        return str(self.plan)

    @contextmanager
    def _alone(self, report: Report, work: Work) -> Iterator[None]:
        """Let only one of the panel's threads run the model; raises Cancelled where a Stop comes first."""
        while not self._model_taken.acquire(timeout=LOOK):
            report.check()
            work.caption.say("waits for what runs to end")
        try:
            yield
        finally:
            self._model_taken.release()

    def _run(self, report: Report, data: tuple[Any, ...], options: dict[str, Any]) -> str:
        """One run from its examples to its state, in the thread of `work`."""
        with self._alone(report, self.work):
            return self._tune(report, data, options)

    def _tune(self, report: Report, data: tuple[Any, ...], options: dict[str, Any]) -> str:
        if not (examples := examples_of(*data)):
            raise ArgError(NOTHING)
        samples = Samples(self.model, options["template"], report.cancel)
        self.job = job = start_tuning(self.model, examples, on_step=samples, cancel=report.cancel, **options)
        samples.begin(job, options["held_out"] is not None)
        with suppress(Cancelled):
            self._view.watch(job, report, samples)
        try:
            state = job.wait()
            self._take(job, state)
        finally:
            self._view.draw(job)
        if report.cancel.is_set():
            how = f"stopped after step {len(job.steps)} of {options['steps']}"
            return f"{how}; {f'kept: {state.card.recipe}' if job.steps else 'nothing was tuned'}"
        samples.ask(state, len(job.steps))
        self._view.tell(samples)
        return f"done; {state.card.recipe}"

    def _take(self, job: TuningJob, state: State) -> None:
        """Make the state of a run that ended the panel's, unless it did no step."""
        if job.steps:
            self._taking = True
            try:
                self.state = state
            finally:
                self._taking = False
