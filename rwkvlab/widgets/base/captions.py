"""Caption: a line under a view that says in words what it shows; nothing in it can act."""

from __future__ import annotations

from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import show
from rwkvlab.measure.comparing.grid import html_text
from rwkvlab.states.render import NO_FORMULAS

LIMIT = 1000  # characters shown


class Caption(ipywidgets.HTML):
    """A line of plain text, its trait `text`, that screen readers announce when it changes.

    Markup, formulas and control characters in it are shown as they are written. `trouble` marks a line that tells of
    something that went wrong.
    """

    text = traitlets.Unicode("", help="What is said, as plain text.")
    trouble = traitlets.Bool(False, help="Whether the line tells of a mistake or a failure.")

    def __init__(self, text: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.add_class("rwkvlab-says")
        self.say(text)

    def say(self, text: object, trouble: bool = False) -> None:
        """Show a text, or an error by its message; never raises."""
        plain = text if isinstance(text, str) else f"{type(text).__name__}: {show(text, LIMIT)[1:-1]}"
        with self.hold_trait_notifications():
            self.trouble = trouble
            self.text = plain
        self._show()

    def _show(self) -> None:
        cut = self.text if len(self.text) <= LIMIT else f"{self.text[:LIMIT]}…"
        colour = "var(--jp-error-color1,#c62828)" if self.trouble else "var(--jp-ui-font-color1,inherit)"
        self.value = (
            f'<span class="rwkvlab-caption {NO_FORMULAS}" role="status" aria-live="polite" '
            f'style="color:{colour};white-space:pre-wrap;overflow-wrap:anywhere">{html_text(cut)}</span>'
        )
