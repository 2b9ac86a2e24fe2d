"""What one does with a model: generate, chat, score and trace, as methods; each lives in the file of its name."""

from __future__ import annotations

from typing import Any

from rwkvlab.model.trace import Trace, trace


class Verbs:
    """The methods of Model that are functions in files of their own; their docstrings hold the details."""

    def trace(self, prompt: Any, state: Any = None, **options: Any) -> Trace:
        """Keep the states and operands along a text; see `rwkvlab.model.trace.trace`."""
        return trace(self, prompt, state, **options)  # type: ignore[arg-type]
