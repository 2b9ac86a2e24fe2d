"""The examples of a TunePanel: given from Python, a JSONL file, or lines that were pasted; and how code writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rwkvlab.errors import ArgError, FormatError, show
from rwkvlab.model.example_files import read_examples
from rwkvlab.tensorfile.safetensors import strict_json
from rwkvlab.widgets.base.code import variable_of

SOURCES = ("given", "file", "pasted")
BETWEEN = ("\t", "=>", "⇒", "→")  # what may stand between a question and its answer; a tab first: spreadsheets have it


def pasted_examples(text: str) -> list[dict[str, Any]]:
    """Return the examples of lines `question => answer` (or a tab between them), or JSON objects as JSONL has them.

    A question and its answer become a conversation, which tuning writes in its chat template. Blank lines are left
    out. Raises FormatError that names the line.
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        line, where = line.strip(), f"line {number}"
        if not line:
            continue
        if line.startswith("{"):
            found.append(strict_json(where, line.encode("utf-8", "surrogatepass")))
            continue
        mark = next((mark for mark in BETWEEN if mark in line), "")
        asked, told = (part.strip() for part in line.split(mark, 1)) if mark else (line, "")
        if not asked or not told:
            raise FormatError(f"{where}: need question => answer (or a tab between them), got {show(line)}")
        said = (("user", asked), ("assistant", told))
        found.append({"messages": [{"role": role, "content": content} for role, content in said]})
    return found


def traits_of(examples: Any) -> dict[str, Any]:
    """Return the traits that say what was given as examples: a list of them, the path of a JSONL file, or nothing."""
    if examples is None:
        return {}
    if isinstance(examples, str | os.PathLike):
        return {"path": os.fspath(examples)}
    if isinstance(examples, bytes) or not isinstance(examples, Sequence):
        raise ArgError(f"TunePanel: need a list of examples or the path of a JSONL file, got {show(examples)}")
    return {"examples": examples}


def examples_of(source: str, given: Any, path: str, text: str) -> list[Any]:
    """Return the examples of one of SOURCES, [] where nothing is there yet; raises what reading them raises."""
    if source == "given":
        if given is None:
            return []
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise ArgError(f"examples: need a list of (prompt, answer) pairs or texts, got {show(given)}")
        return list(given)
    if source == "file":
        return read_examples(path.strip()) if path.strip() else []
    return pasted_examples(text)


def examples_code(source: str, given: Any, path: str, text: str) -> str:
    """Return how a call of `lab.tune` writes the examples; where pasted lines are wrong, what would hold them."""
    if source == "given":
        return variable_of(given, "examples")
    if source == "file":
        return f"lab.read_examples({path.strip()!r})"
    try:
        return repr(pasted_examples(text))
    except ValueError:
        return "examples"
