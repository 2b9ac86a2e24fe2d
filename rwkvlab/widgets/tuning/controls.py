"""The controls of a TunePanel: what a person fills in and presses, each linked to a trait of the panel."""

from __future__ import annotations

from typing import Any

import ipywidgets
import traitlets

from rwkvlab.tasks.templates import TEMPLATES

WIDE = {"width": "calc(100% - 4px)"}
FIELD, LABEL = "158px", "62px"  # of all settings, so that they stand in columns
HINT = "How do I get from Tokyo to Paris? => * by plane\n(one question => answer a line; a tab between them; or JSONL)"
FILE_HINT = "examples.jsonl (one JSON object a line)"


def controls(panel: Any) -> dict[str, ipywidgets.Widget]:
    """Return the controls by name, linked to the panel's traits of that name in both directions."""
    made: dict[str, Any] = {
        "source": ipywidgets.ToggleButtons(
            options=[("from Python", "given"), ("a JSONL file", "file"), ("pasted lines", "pasted")],
            tooltips=["the examples that Python gave, or sets as .examples", "a file on the kernel's machine", "text"],
        ),
        "path": ipywidgets.Text(
            placeholder=FILE_HINT,
            description="file",
            continuous_update=False,
            layout=WIDE,
            style={"description_width": LABEL},
        ),
        "text": ipywidgets.Textarea(placeholder=HINT, continuous_update=False, rows=5, layout=WIDE),
        "steps": _number(ipywidgets.IntText, "steps", "steps of Adam"),
        "lr": _number(ipywidgets.FloatText, "lr", "the learning rate at the first step; it falls to 0 along a cosine"),
        "batch": _number(ipywidgets.IntText, "batch", "examples a step; 0: 16, or all where there are fewer"),
        "held_out": _number(ipywidgets.FloatText, "held out", "share of the examples set apart, 0 to 1; 0: none", 0.05),
        "seed": _number(ipywidgets.IntText, "seed", "what is held out, and the order of the examples"),
        "template": ipywidgets.Dropdown(
            options=[("as written", ""), *((name, name) for name in TEMPLATES)],
            description="template",
            tooltip="how conversations and pasted lines are written; kept on the state's card",
            layout={"width": "190px"},
            style={"description_width": LABEL},
        ),
        "teacher": ipywidgets.Textarea(
            placeholder="a long prompt: the state learns to answer as the model does after reading it",
            continuous_update=False,
            rows=4,
            layout=WIDE,
        ),
        "go_on": ipywidgets.Checkbox(
            description="go on from the state",
            indent=False,
            tooltip="begin with the state of the last run, or the one set from Python; else with zeros",
            layout={"width": "auto", "margin": "2px 2px 2px 10px"},
        ),
    }
    for name, control in made.items():
        control.add_class(f"rwkvlab-{name.replace('_', '-')}")
        there_and_back = (lambda value: value or 0, lambda value: value or None) if name == "batch" else None
        traitlets.link((panel, name), (control, "value"), transform=there_and_back)
    return made


def _number(kind: type, description: str, tooltip: str, step: float | None = None) -> Any:
    more = {} if step is None else {"step": step}
    layout, style = {"width": FIELD}, {"description_width": LABEL}
    return kind(description=description, tooltip=tooltip, layout=layout, style=style, **more)
