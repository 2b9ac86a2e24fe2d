"""A file of texts for `rwkvlab verify`: one JSON value a line, or plain lines; every mistake with its line."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from rwkvlab.errors import ArgError, FormatError, show
from rwkvlab.tensorfile.safetensors import strict_json
from rwkvlab.tensorfile.source import Source

MAX_BYTES = 16 << 20
_NEED = 'need {"question": …, "answer": …} or {"text": …}'


def read_texts(path: str) -> list[Any]:
    """Return (question, answer) pairs and plain texts; blank lines are left out.

    A line that begins with `{` is JSON with question and answer, or with text; any other line is a text as it stands.
    Raises PathError, FormatError with file and line, ArgError for a file without texts or of more than 16 MiB.
    """
    with closing(Source(path)) as source:
        name = source.name
        if source.size > MAX_BYTES:
            raise ArgError(f"{name}: {source.size:,} bytes, at most {MAX_BYTES:,} are read; give a part of the texts")
        raw = source.bytes_at(0, source.size)
    try:
        lines = raw.decode("utf-8-sig").split("\n")  # not splitlines: a JSON text may hold U+2028
    except UnicodeDecodeError as error:
        raise FormatError(f"{name}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from error
    kept = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, 1) if line.strip())
    texts = [_text(f"{name}: line {number}", line) for number, line in kept]
    if not texts:
        raise ArgError(f"{name}: holds no texts; give one a line")
    return texts


def _text(where: str, line: str) -> Any:
    if not line.lstrip().startswith("{"):
        return line
    found = strict_json(where, line.encode("utf-8", "surrogatepass"))
    given = [found.get(key) for key in (("text",) if "text" in found else ("question", "answer"))]
    if not all(isinstance(text, str) for text in given):
        raise FormatError(f"{where}: {_NEED}, all of them texts; got {show(', '.join(found), 60)}")
    return given[0] if len(given) == 1 else tuple(given)


def as_json(value: object) -> str:
    """Return JSON as it may be printed: letters of any script as they are, escaped what could act on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
