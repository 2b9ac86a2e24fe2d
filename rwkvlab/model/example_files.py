"""Files of examples for `tune`: JSON lines, each mistake with its place; and the texts that other files hold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from rwkvlab.errors import ArgError, FormatError
from rwkvlab.tensorfile.safetensors import strict_json
from rwkvlab.tensorfile.source import Source

MAX_BYTES = 1 << 30


def utf8_file(path: str | Path, most: int) -> tuple[str, str]:
    """Return (the name that messages use, the text) of a file in UTF-8, with or without a byte order mark.

    Raises PathError, FormatError, and ArgError for a file of over `most` bytes.
    """
    with closing(Source(path)) as source:
        name = source.name
        if source.size > most:
            raise ArgError(f"{name}: {source.size:,} bytes, at most {most:,} are read; give a part of it")
        raw = source.bytes_at(0, source.size)
    try:
        return name, raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{name}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from error


def read_examples(path: str | Path) -> list[Any]:
    """Return the examples of a JSONL file, one object a line, as `lab.tune` takes them; blank lines are left out.

    Raises PathError, FormatError that names the line, ArgError for a file without examples or of over 1 GiB.
    """
    return located_examples(path)[0]


def located_examples(path: str | Path) -> tuple[list[Any], list[str]]:
    """Return what `read_examples` does, and where each example stands: file and line."""
    name, text = utf8_file(path, MAX_BYTES)
    found, places = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            places.append(f"{name}: line {number}")
            found.append(strict_json(places[-1], line.strip().encode()))
    if not found:
        raise ArgError(f"{name}: holds no examples; give one JSON object a line")
    return found, places
