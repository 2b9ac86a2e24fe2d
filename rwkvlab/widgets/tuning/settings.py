"""The settings and the data of a TunePanel as traits, and the Python calls that they stand for."""

from __future__ import annotations

from typing import Any

import traitlets

from rwkvlab.states.state import State
from rwkvlab.tasks.templates import TEMPLATES
from rwkvlab.widgets.base.code import call, state_code, variable_of
from rwkvlab.widgets.tuning.data import SOURCES, examples_code

DATA = ("examples", "path", "text", "source")
SETTINGS = ("steps", "lr", "held_out", "batch", "seed", "template", "teacher", "go_on")
SOURCE_OF = {"examples": "given", "path": "file", "text": "pasted"}
# what code need not say, and what a panel has where it was told nothing
DEFAULTS = {"batch": None, "seed": 0, "template": "", "teacher": ""}
PASTED_FORM = "world"  # the template of pasted lines where none is chosen


class TuneSettings(traitlets.HasTraits):
    """What the next run would be of; held_out is a share with 0 for none, teacher a prompt with "" for none."""

    state = traitlets.Instance(State, allow_none=True, help="The best state of the last run, or one set from Python.")
    go_on = traitlets.Bool(False, help="Whether the next run begins from the state, in place of zeros.")
    source = traitlets.Enum(SOURCES, "pasted", help="Where the examples come from.")
    examples = traitlets.Any(None, allow_none=True, help="Examples from Python, as `lab.tune` takes them.")
    path = traitlets.Unicode("", help="The path of a JSONL file.")
    text = traitlets.Unicode("", help="Pasted lines: question => answer, or JSON objects.")
    steps = traitlets.Int(200, help="Steps of Adam.")
    lr = traitlets.Float(0.04, help="The learning rate at the first step.")
    batch = traitlets.Int(None, allow_none=True, help="Examples a step; None: 16, or all where there are fewer.")
    held_out = traitlets.Float(0.1, help="The share of the examples that is set apart; 0: none.")
    seed = traitlets.Int(0, help="Of what is held out, and of the order of the examples.")
    template = traitlets.Enum(["", *TEMPLATES], "", help="How conversations and pasted lines are written.")
    teacher = traitlets.Unicode("", help='A prompt to distil; "": none.')

    @property
    def code(self) -> str:
        """The call that makes the same panel."""
        words = {"file": [repr(self.path)], "pasted": [f"text={self.text!r}"] if self.text else []}
        data = words.get(self.source, [variable_of(self.examples, "examples")])
        named = {name: getattr(self, name) for name in ("steps", "lr", "held_out")}
        named |= {name: getattr(self, name) for name, usual in DEFAULTS.items() if getattr(self, name) != usual}
        return call("lab.widgets.TunePanel", "model", *data, *self._start("state"), **named)

    @property
    def tune_code(self) -> str:
        """The call of `lab.tune` that a run with the settings as they are now stands for."""
        options = self.options()
        del options["init"]
        usual = {"held_out": None, "batch": None, "seed": 0, "template": "", "teacher": None}
        named = {name: value for name, value in options.items() if name not in usual or value != usual[name]}
        data = examples_code(self.source, self.examples, self.path, self.text)
        return call("lab.tune", "model", data, *self._start("init"), **named)

    def data(self) -> tuple[str, Any, str, str]:
        """What `examples_of` takes."""
        return self.source, self.examples, self.path, self.text

    def options(self) -> dict[str, Any]:
        """What `tune` takes."""
        form = self.template or (PASTED_FORM if self.source == "pasted" else "")
        return {
            "steps": self.steps,
            "lr": self.lr,
            "held_out": self.held_out or None,
            "batch": self.batch,
            "seed": self.seed,
            "template": form,
            "teacher": self.teacher if self.teacher.strip() else None,
            "init": self.state if self.go_on else None,
        }

    def _start(self, name: str) -> list[str]:
        return [f"{name}={state_code(self.state)}"] if self.go_on and self.state is not None else []
