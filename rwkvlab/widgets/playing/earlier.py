"""Earlier: the questions that were asked before, with their answers and settings, one of them shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets

from rwkvlab.errors import show
from rwkvlab.widgets.base.buttons import bar, button
from rwkvlab.widgets.playing.answers import AnswersView
from rwkvlab.widgets.playing.asking import Settings, Turn

MOST = 20  # chats that are kept, since the states in them take memory


class Earlier(ipywidgets.VBox):
    """A list of earlier chats, `chats`, oldest first; the chosen one is shown, and its settings can be used again."""

    def __init__(self, use: Callable[[Settings], object]) -> None:
        self.chats: tuple[tuple[Turn, ...], ...] = ()
        self._count = 0
        self._menu = ipywidgets.Dropdown(
            options=[], description="earlier", layout={"width": "480px", "max_width": "100%"}
        )
        self._menu.style.description_width = "initial"
        self._menu.tooltip = "an earlier question, with its answers and settings"
        self._view = AnswersView()
        again = button(
            "Use its settings",
            "history",
            "set question, columns, template, seed and sampling as they were",
            self._again,
        )
        self._use = use
        super().__init__([bar(self._menu, again), self._view])
        self.add_class("rwkvlab-earlier")
        self.layout.display = "none"
        self._menu.observe(lambda change: self._view.show(self._turns()), "value")

    def add(self, turns: Sequence[Turn]) -> None:
        """Add a chat, unless it is empty, and show it."""
        if not turns:
            return
        self._count += 1
        self.chats = (*self.chats, tuple(turns))[-MOST:]
        first = self._count - len(self.chats) + 1
        titles = [
            f"{number}: {show(one[0].settings.question, 60)[1:-1]}" for number, one in enumerate(self.chats, first)
        ]
        options = list(zip(titles, range(first, self._count + 1), strict=True))
        self._menu.options = options[::-1]
        self._menu.value = self._count
        self.layout.display = ""

    def _turns(self) -> tuple[Turn, ...]:
        at = (self._menu.value or 0) - self._count - 1
        return self.chats[at] if -len(self.chats) <= at < 0 else ()

    def _again(self) -> None:
        if turns := self._turns():
            self._use(turns[-1].settings)
