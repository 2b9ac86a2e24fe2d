"""What a TunePanel shows of a run: its numbers in words, its curve as a figure for both themes, answers meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets

from rwkvlab.model.tuning import TuneStep, TuningJob
from rwkvlab.plots import plot_tuning
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.pictures import Picture, for_both_themes
from rwkvlab.widgets.base.work import Report
from rwkvlab.widgets.tuning.samples import Samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK = 0.05  # seconds between two looks at a run
REDRAW = 0.5  # seconds from one picture to the next, at least
DRAWING = 0.2  # share of a core that drawing takes, at most
MARGINS = {"left": 0.085, "right": 0.975, "bottom": 0.17, "top": 0.97}
POINTS = 2000  # of the thin line, at most
LINES = ("#2f8fd8", "#e0701a", "#e0701a")
TOO_FAR = 10.0  # times the normal norm, from which on tuning warns


class RunView(ipywidgets.VBox):
    """The numbers, the curve and the sample answers of a run; `figure` is the curve, None before the first step."""

    def __init__(self) -> None:
        self.figure: Figure | None = None
        self.caption, self.picture, self.answers = Caption(), Picture(), ipywidgets.HTML()
        self.caption.add_class("rwkvlab-tune-numbers")
        self.answers.add_class("rwkvlab-tune-answers")
        super().__init__([self.caption, self.picture, self.answers])

    def watch(self, job: TuningJob, report: Report, samples: Samples) -> None:
        """Show how a run goes on until it ends; raises Cancelled at a Stop."""
        again, shown = 0.0, samples.samples
        while not job.done:
            steps = job.steps
            report.check()
            if steps:
                report(steps[-1].step, steps[-1].steps, "tuning")
            if steps and time.monotonic() >= again:
                began, busy = time.monotonic(), time.thread_time()
                self.draw(job)
                again = began + max(REDRAW, (time.thread_time() - busy) / DRAWING)
            if samples.samples is not shown:
                shown = samples.samples
                self.tell(samples)
            report.cancel.wait(LOOK)

    def draw(self, job: TuningJob) -> None:
        """Show the curve and the numbers as they are now; nothing before the first step, and where the program ends."""
        if (steps := job.steps) and threading.main_thread().is_alive():
            self.figure = curve(steps)
            said = numbers(steps[-1])
            self.picture.show(self.figure, f"losses after each step · {said}")
            self.caption.say(said)

    def tell(self, samples: Samples) -> None:
        """Show the newest answers."""
        self.answers.value = samples.to_html()


def curve(steps: Sequence[TuneStep]) -> Figure:
    """Return the losses so far as a figure without a background."""
    from matplotlib.figure import Figure

    every, last = -(-len(steps) // POINTS), len(steps) - 1
    shown = [step for at, step in enumerate(steps) if at % every == 0 or at == last or step.held_out is not None]
    figure = Figure(figsize=(7.6, 2.9))
    figure.subplots_adjust(**MARGINS)  # a layout engine would draw everything twice
    ax = figure.add_subplot()
    plot_tuning(shown, ax=ax)
    ax.set_xlim(0, _width(steps[-1]))
    for line, colour in zip(ax.lines, LINES, strict=False):
        line.set(color=colour, markeredgecolor=colour)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
    ax.legend(fontsize="small")
    return for_both_themes(figure)


def _width(step: TuneStep) -> int:
    """How many steps the axis shows: at the start of a long run not all of them."""
    sizes = (size * 10**power for power in range(1, 9) for size in (1, 2, 5))
    return min(step.steps, next((size for size in sizes if size >= 1.25 * step.step), step.steps))


def numbers(step: TuneStep) -> str:
    """Return what is known after a step, with its units."""
    held = "" if step.held_out is None else f" · held out {step.held_out:.4f}"
    best = "" if step.best is None else f" · lowest held out {step.best:.4f}"
    far = f" (over {TOO_FAR:g}: if answers suffer take a smaller lr)" if step.multiple > TOO_FAR else ""
    norm = f" · norm {step.norm:.3g}, {step.multiple:.1f} times normal{far}"
    pace = f" · {step.tokens_per_second:,.0f} tokens/s"
    return f"step {step.step} of {step.steps} · loss {step.loss:.4f} nats a token{held}{best}{norm}{pace}"
