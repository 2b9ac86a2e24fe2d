"""Buttons with words on them, and rows of controls that wrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets


def button(words: str, icon: str, tip: str, do: Callable[[], object]) -> ipywidgets.Button:
    """Return a button that calls `do()`; its CSS class is rwkvlab- and its first word."""
    made = ipywidgets.Button(description=words, icon=icon, tooltip=tip)
    made.layout.width = "auto"
    made.add_class(f"rwkvlab-{words.split()[0].lower()}")
    made.on_click(lambda _: do())
    return made


def bar(*parts: Any) -> ipywidgets.HBox:
    """Return controls side by side, in several lines where there is no room."""
    made = ipywidgets.HBox(list(parts), layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
    made.add_class("rwkvlab-bar")
    return made


def text_box(name: str, hint: str, title: str = "", **options: Any) -> ipywidgets.Text:
    """Return a box to type a line into; its CSS class is rwkvlab- and its name, `title` stands in front of it."""
    made = ipywidgets.Text(placeholder=hint, description=title, **options)
    made.add_class(f"rwkvlab-{name}")
    return made
