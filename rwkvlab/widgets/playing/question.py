"""QuestionBox: where a person types a question and presses Ask or Ctrl-Enter; it also hands files to the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from rwkvlab.errors import ArgError
from rwkvlab.states.render import size_text

HERE = Path(__file__).parent
LARGEST = 50 * 2**20  # bytes that are sent to a browser at once


class QuestionBox(anywidget.AnyWidget):
    """A box whose trait `value` is what stands in it; ask(text) is called when the person asks."""

    _esm = (HERE / "question.js").read_text("utf-8")
    _css = (HERE / "question.css").read_text("utf-8")
    value = traitlets.Unicode("", help="The question as it stands in the box.").tag(sync=True)
    hint = traitlets.Unicode("a question for all columns; Ctrl-Enter asks").tag(sync=True)

    def __init__(self, ask: Callable[[str], object], **options: Any) -> None:
        super().__init__(**options)
        self._ask = ask
        self.on_msg(self._heard)

    def _heard(self, _: object, content: Any, buffers: object) -> None:
        text = content.get("ask") if isinstance(content, dict) else None
        if isinstance(text, str):
            self._ask(text)

    def offer(self, name: str, kind: str, data: bytes) -> None:
        """Let the browser save bytes as a file of this name and MIME type; raises ArgError where they are too many."""
        if len(data) > LARGEST:
            size, most = size_text(len(data)), size_text(LARGEST)
            raise ArgError(f"{name}: {size}, a browser gets at most {most}; use playground.result.to_html(path)")
        self.send({"file": name, "type": kind}, [data])
