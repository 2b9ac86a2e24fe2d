"""A file of texts for `rwkvlab verify`: one JSON array, or JSON and plain lines; every mistake with its place."""

from __future__ import annotations

import json
from typing import Any

from rwkvlab.errors import ArgError, FormatError, RwkvLabError, show
from rwkvlab.model.example_files import utf8_file
from rwkvlab.tensorfile.safetensors import strict_json
from rwkvlab.tensorfile.source import AGAIN

MAX_BYTES = 16 << 20
_NEED = 'need {"question": …, "answer": …}, {"prompt": …, "answer": …} or {"text": …}'
_REMEDIES = (
    (AGAIN, "correct it"),
    ("download or save it again", "write texts into it, one a line"),
    ("give the path of a .pth, .st, .state or .safetensors file", "give the path of a text file"),
)


def read_texts(path: str) -> list[Any]:
    """Return (question, answer) pairs, {"prompt", "answer"} and plain texts; blank lines are left out.

    A file that begins with `[` is one JSON array of objects, of pairs [question, answer] and of texts. In any other, a
    line that begins with `{` is JSON with question or prompt and answer, or with text, and the rest are texts as they
    stand.
    Raises PathError, FormatError with file and line (or index), ArgError for a file without texts or of over 16 MiB.
    """
    try:
        return _read(path)
    except RwkvLabError as error:
        said = str(error)
        for one, here in _REMEDIES:
            said = said.replace(one, here)
        raise type(error)(said) from error


def _read(path: str) -> list[Any]:
    name, text = utf8_file(path, MAX_BYTES)
    if text.lstrip().startswith("["):
        texts = _array(name, text)
    else:
        # not splitlines: a JSON text may hold U+2028
        kept = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        texts = [_text(f"{name}: line {number}", line) for number, line in kept]
    if not texts:
        raise ArgError(f"{name}: holds no texts; give one a line")
    return texts


def _array(name: str, text: str) -> list[Any]:
    try:
        found = strict_json(name, b'{"": ' + text.encode() + b"}")
        if len(found) > 1:
            raise FormatError(f"{name}: not JSON")
    except FormatError as error:
        try:
            json.loads(text)
        except json.JSONDecodeError as place:
            raise FormatError(
                f"{name}: begins with [, as one JSON array does, and line {place.lineno} is not JSON at character "
                f'{place.colno:,}; correct it, or write {{"text": "[…"}} for a text that begins so'
            ) from error
        except (RecursionError, ValueError):
            pass
        raise
    return [_item(f"{name}: item {index}", value) for index, value in enumerate(found[""])]


def _item(where: str, value: object) -> Any:
    """Return a text or a pair from an item of an array."""
    if isinstance(value, dict):
        return _object(where, value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return _object(where, dict(zip(("question", "answer"), value, strict=True)))
    if isinstance(value, str):
        return _object(where, {"text": value})
    raise FormatError(f'{where}: {_NEED}, ["question", "answer"] or "text"; got {show(value, 60)}')


def _text(where: str, line: str) -> Any:
    if not line.lstrip().startswith("{"):
        return line
    return _object(where, strict_json(where, line.encode("utf-8", "surrogatepass")))


def _object(where: str, found: dict[str, Any]) -> Any:
    asked = "prompt" if "prompt" in found and "question" not in found else "question"
    names = ("text",) if "text" in found else (asked, "answer")
    given = [found.get(key) for key in names]
    if not all(isinstance(text, str) for text in given):
        raise FormatError(f"{where}: {_NEED}, all of them texts; got {show(', '.join(found), 60)}")
    if not given[-1]:
        raise FormatError(f"{where}: {names[-1]} is empty, nothing is left to be judged; fill it in, or leave it out")
    if asked == "prompt" and len(given) == 2:
        return dict(zip(names, given, strict=True))
    return given[0] if len(given) == 1 else tuple(given)


def as_json(value: object) -> str:
    """Return JSON as it may be printed: letters of any script as they are, escaped what could act on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
