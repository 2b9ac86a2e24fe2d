"""Messages in the words of the command line: what they call `overwrite=True` is `--overwrite` here."""

from __future__ import annotations

import re

# whole phrases first: what a program can do in Python, and nothing here
_PHRASES = (
    (" (--overwrite)", ""),
    ("load it with orientation=", "give orientation="),
    ("pass model=", "give model="),
    ("; open it with load_state", "; give a model here"),
    ("; open it with load_model", "; give a state here"),
    ("; load_state of the same file gives it", "; give the file as a state too"),
    ("; try load_state", "; it may be a state"),
    ("mount it all the same after load_state(…, any_base=True)", "where there is --any-base, mount it all the same"),
    ("mount transposed(state)", "turn it in Python with transposed(state)"),
    ("use Path(…).expanduser()", "write $HOME in its place"),
    ("give another path as checkpoint=", "give another path as --checkpoint"),
    ("give it as state= too", "give it as STATE too"),
    (", or an object with encode and decode", ""),
)
_FLAG = re.compile(r"(?<![^\s(,;])(?:pass )?(overwrite|drop_shifts|any_base|checkpointing)=True")
_VALUE = re.compile(
    r"(?<![^\s(,;])(orientation|format|dtype|device|template|tokenizer|model|texts|seeds)="
    r"(?:(['\"])(.*?)\2|(\w+)|(?=(<)))?"
)
_OFF = re.compile(r"(?<![^\s(,;])(official)=False")
_NAME = re.compile(r"=(?:'[^'\n]*'|\"[^\"\n]*\")|('[^'\n]*')")  # the group: how messages quote names from outside


def in_options(text: str) -> str:
    """Return a message with the arguments of functions in it replaced by the options of the same names.

    What stands in single quotes, as names do in messages, stays as it is.
    """
    parts, at = [], 0
    for found in _NAME.finditer(text):
        if found[1]:
            parts += [_translated(text[at : found.start()]), found[1]]
            at = found.end()
    return "".join([*parts, _translated(text[at:])])


def _translated(text: str) -> str:
    for phrase, here in _PHRASES:
        text = text.replace(phrase, here)
    text = _FLAG.sub(lambda found: f"give --{found[1].replace('_', '-')}", text)
    text = _OFF.sub(r"--no-\1", text)
    return _VALUE.sub(lambda found: f"--{found[1]}" + _given(found[3] or found[4] or "", found[5]), text)


def _given(value: str, path: str | None) -> str:
    return f" {value}" if value else " " if path else ""
