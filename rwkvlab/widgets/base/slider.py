"""Slider: a number set by hand; its value follows while it moves, and a release is told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

HERE = Path(__file__).parent


class Slider(anywidget.AnyWidget):
    """A slider with a box for the exact number; its trait `value` follows the hand.

    `on_release` names functions to call, without arguments, when the hand lets go, a key has moved it, or a number was
    typed: value is then the last one. A value beyond min or max, set from Python, moves them.
    """

    _esm = (HERE / "slider.js").read_text("utf-8")
    _css = (HERE / "slider.css").read_text("utf-8")
    value = traitlets.Float(0.0, help="The number.").tag(sync=True)
    min = traitlets.Float(0.0).tag(sync=True)
    max = traitlets.Float(1.0).tag(sync=True)
    step = traitlets.Float(0.01).tag(sync=True)
    label = traitlets.Unicode("", help="What the number is.").tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_class("rwkvlab-slider-widget")
        self._told: list[Callable[[], object]] = []
        self.on_msg(self._on_message)
        self._widen({"new": self.value})

    def on_release(self, tell: Callable[[], object]) -> None:
        """Call `tell()` at every release."""
        self._told.append(tell)

    @traitlets.observe("value")
    def _widen(self, change: Any) -> None:
        self.min, self.max = min(self.min, change["new"]), max(self.max, change["new"])

    def _on_message(self, _: object, content: Any, __: object) -> None:
        value = content.get("released") if isinstance(content, dict) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self.min <= value <= self.max:
            self.value = float(value)  # the release may come before the last move
            for tell in self._told:
                tell()
