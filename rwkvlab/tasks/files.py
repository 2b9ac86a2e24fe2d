"""Tasks from files: JSON lines with questions and answers, or texts, one a line; every mistake with its line."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, NoReturn

from rwkvlab.errors import ArgError, FormatError, LimitError, PathError, show
from rwkvlab.tasks.task import NORMALISE, Example, Task, text_task
from rwkvlab.tasks.templates import Template, get_template

MAX_BYTES = 64 << 20
MAX_MARKS = 100_000  # values, names and brackets of one line
MAX_CHOICES = 1000
MAX_EXAMPLES = 200_000  # of a file, blank lines counted
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # the only way to half of a surrogate pair from UTF-8
FILE_KINDS = ("exact", "choice", "last word", "text")


def load_task(
    path: str | os.PathLike[str],
    kind: str = "exact",
    *,
    name: str | None = None,
    template: str | Template = "raw",
    normalise: str = "none",
    context: str = "\n",
) -> Task:
    r"""Read a task from a file of 64 MiB and 200,000 lines at most, UTF-8, one example a line; blank ones are left out.

    kind "exact": {"prompt": …, "answer": …}. "choice": {"question": …, "choices": […], "answer": …}, the answer as the
    index of a choice (from 0) or as its text; normalise as in `Task`. "last word" and "text": {"text": …}, or the text
    itself where the line begins with no brace; of "last word", the last word and the blank before it are the answer.
    Other fields are ignored. name: None takes the file's, without its suffix. template is that of `Task`, context that
    of `text_task`. Raises PathError, FormatError with file and line, LimitError, ArgError.
    """
    if kind not in FILE_KINDS:
        raise ArgError(f"kind: need one of {', '.join(FILE_KINDS)}, got {show(kind)}")
    if normalise not in NORMALISE:
        raise ArgError(f"normalise: need one of {', '.join(NORMALISE)}, got {show(normalise)}")
    get_template(template)
    file, title, text = _read(path)
    if (lines := text.count("\n") + (not text.endswith("\n"))) > MAX_EXAMPLES:
        raise LimitError(f"{file}: {lines:,} lines, at most {MAX_EXAMPLES:,} examples are read; give a part of them")
    called = title if name is None else name
    make = {"exact": _exact, "choice": _choice, "last word": _last_word, "text": _plain}[kind]
    examples = [make(where, line) for where, line in _lines(file, text)]
    if not examples:
        raise FormatError(f"{file}: holds no examples; write one a line")
    if kind == "text":
        return text_task(called, [example.answer for example in examples], context=context)
    return Task.of(called, examples, kind=kind, template=template, normalise=normalise)


def _read(path: str | os.PathLike[str]) -> tuple[str, str, str]:
    """Return how messages call a file, its name without suffix, and its text."""
    try:
        given = os.fspath(path)
    except TypeError:
        raise PathError(f"path: need a string or a Path, got {show(type(path).__name__)}") from None
    if not isinstance(given, str) or not given or "\0" in given:
        raise PathError(f"path: need a non-empty string without NUL, got {show(given)}")
    base = os.path.basename(given)
    name, raw, handle = show(base), b"", -1
    try:
        handle = os.open(given, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise PathError(f"{show(given)}: is no regular file; give the path of a text file")
        while len(raw) <= MAX_BYTES and (block := os.read(handle, MAX_BYTES + 1 - len(raw))):
            raw += block
    except (OSError, ValueError) as error:
        if isinstance(error, PathError):
            raise
        why = "no such file" if getattr(error, "errno", 0) == errno.ENOENT else getattr(error, "strerror", None)
        raise PathError(f"{show(given)}: {why or 'cannot be opened'}; give the path of a text file") from error
    finally:
        if handle >= 0:
            os.close(handle)
    if len(raw) > MAX_BYTES:
        raise LimitError(f"{name}: over {MAX_BYTES:,} bytes, the most that are read; give a part of the examples")
    try:
        return name, os.path.splitext(base)[0], raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{name}: line {line}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from error


def _lines(file: str, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a JSON text may hold U+2028
        if line.strip():
            yield f"{file}: line {number}", line.removesuffix("\r")


def _object(where: str, line: str, **wanted: type | tuple[type, ...]) -> dict[str, Any]:
    """Return a JSON object that has these fields, non-empty and of these types; FormatError says what is wrong."""
    if sum(map(line.count, ":,[{")) > MAX_MARKS:
        raise LimitError(f"{where}: more than {MAX_MARKS:,} values, names and brackets; no honest example has them")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise FormatError(f"{where}: a name is there twice; keep one of them")
        return found

    def constant(word: str) -> NoReturn:
        raise FormatError(f"{where}: {word} is not JSON; correct it")

    need = "need one JSON object a line, with " + " and ".join(f'"{key}"' for key in wanted)
    try:
        found = json.loads(line, object_pairs_hook=unique, parse_constant=constant)
        if _HALF.search(line):
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not JSON at character {error.pos + 1:,}; {need}") from error
    except UnicodeEncodeError as error:
        raise FormatError(f"{where}: a text with half of a surrogate pair; correct it") from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{where}: nested too deep or a number too long; {need}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{where}: got {show(type(found).__name__)}; {need}")
    for key, kinds in wanted.items():
        value = found.get(key)
        if key not in found or isinstance(value, bool) or not isinstance(value, kinds) or value in ("", []):
            got = show(value, 40) if key in found else "no such field"
            raise FormatError(f"{where}: {key}: {got}; {need}, none of them empty or of another type")
    return found


def _exact(where: str, line: str) -> Example:
    found = _object(where, line, prompt=str, answer=str)
    return Example(found["prompt"], found["answer"])


def _choice(where: str, line: str) -> Example:
    found = _object(where, line, question=str, choices=list, answer=(str, int))
    choices, answer = found["choices"], found["answer"]
    if len(choices) > MAX_CHOICES:
        raise LimitError(f"{where}: choices: {len(choices):,}, at most {MAX_CHOICES:,} are read")
    if not all(isinstance(choice, str) and choice for choice in choices) or len(set(choices)) < 2:
        raise FormatError(f"{where}: choices: need two different non-empty texts at least, got {show(choices)}")
    if isinstance(answer, int):
        if not 0 <= answer < len(choices):
            raise FormatError(f"{where}: answer: need an index of 0 … {len(choices) - 1} or a text, got {show(answer)}")
        answer = choices[answer]
    elif answer not in choices:
        raise FormatError(f"{where}: answer: {show(answer, 40)} is none of the choices; give one, or its index from 0")
    return Example(found["question"], answer, tuple(choices))


def _text_of(where: str, line: str) -> str:
    return _object(where, line, text=str)["text"] if line.lstrip().startswith("{") else line


def _last_word(where: str, line: str) -> Example:
    text = _text_of(where, line).rstrip()
    before = text.rsplit(None, 1)[0].rstrip() if len(text.split(None, 1)) > 1 else ""
    if not before.strip():
        raise FormatError(f"{where}: need two words at least, the last one to be guessed; got {show(text, 40)}")
    return Example(before, text[len(before) :])


def _plain(where: str, line: str) -> Example:
    return Example("", _text_of(where, line))
