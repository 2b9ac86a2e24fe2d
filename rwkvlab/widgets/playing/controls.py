"""Controls: the boxes of a playground's settings, and the traits that they stand for, each way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from rwkvlab.errors import show
from rwkvlab.tasks.templates import TEMPLATES, Template
from rwkvlab.widgets.base.buttons import bar
from rwkvlab.widgets.playing.inputs import AUTO, SEEDS

TOKENS = 2000  # the largest number of tokens that the box takes


class Controls(ipywidgets.VBox):
    """Boxes for template, sampling, seed, KL and chat; changed(name, value) is called when a person changes one.

    The names are those of the playground's traits, and "max_tokens", "temperature" and "top_p" of its `sampling`.
    """

    def __init__(self, changed: Callable[[str, Any], object]) -> None:
        self._changed, self._quiet = changed, False
        menu = ipywidgets.Dropdown(options=self._templates(), description="template", layout={"width": "190px"})
        menu.tooltip = "how the question is written for the model; auto: as the first state's card says"
        menu.style.description_width = "initial"
        check: dict[str, Any] = {"indent": False, "layout": {"width": "auto", "margin": "2px 12px 2px 2px"}}
        kl, chat = "read again for KL", "chat: the next question goes on"
        self._boxes: dict[str, Any] = {
            "template": menu,
            "temperature": ipywidgets.BoundedFloatText(1.0, min=0.0, max=10.0, step=0.1, description="temperature"),
            "top_p": ipywidgets.BoundedFloatText(0.2, min=0.0, max=1.0, step=0.05, description="top_p"),
            "max_tokens": ipywidgets.BoundedIntText(200, min=0, max=TOKENS, description="max tokens"),
            "seed": ipywidgets.BoundedIntText(0, min=0, max=SEEDS, description="seed"),
            "kl": ipywidgets.Checkbox(True, description=kl, tooltip="shade each token by KL, afterwards", **check),
            "chat": ipywidgets.Checkbox(False, description=chat, **check),
        }
        self._boxes["chat"].tooltip = "each column remembers its turns; its state can be switched between two questions"
        for name, width in (("temperature", 145), ("top_p", 110), ("max_tokens", 155), ("seed", 125)):
            self._boxes[name].layout.width, self._boxes[name].style.description_width = f"{width}px", "initial"
        for name, one in self._boxes.items():
            one.add_class(f"rwkvlab-{name.replace('_', '-')}")
            one.observe(lambda change, name=name: self._on_box(name, change["new"]), "value")
        first = [self._boxes[name] for name in ("template", "temperature", "top_p", "max_tokens", "seed")]
        super().__init__([bar(*first), bar(self._boxes["kl"], self._boxes["chat"])])

    def show(self, name: str, value: Any) -> None:
        """Show what a setting is now."""
        self._quiet = True
        try:
            box = self._boxes[name]
            if name == "template" and value not in [held for _, held in box.options]:
                box.options = self._templates(value)
            if name in ("max_tokens", "temperature") and value > box.max:
                box.max = value  # set from Python, where there is no limit
            box.value = value
        finally:
            self._quiet = False

    def _on_box(self, name: str, value: Any) -> None:
        if not self._quiet:
            self._changed(name, value)

    @staticmethod
    def _templates(own: str | Template = AUTO) -> list[tuple[str, str | Template]]:
        more = [] if isinstance(own, str) else [(show(own.name)[1:-1], own)]
        return [(AUTO, AUTO), *((name, name) for name in TEMPLATES), *more]
