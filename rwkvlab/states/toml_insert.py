"""Add tables to a list of tables in a TOML text and change no byte of what is there."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence


def insertion(text: str, key: str, tables: Sequence[dict[str, str]]) -> tuple[int, str]:
    """Return where in a valid TOML text to insert what, so that the list of tables `key` has some more at its end.

    The place is behind the last [[key]] table, the comments that follow it without an empty line included, or else the
    end of the text. Line ends are those of the text.
    """
    import tomlkit

    end = "\r\n" if "\r\n" in text else "\n"
    at = _behind_last(text, key)
    before = "" if not text[:at] or text[:at].endswith("\n") else end
    gap = "" if not text[:at].strip() or text[:at].endswith((end * 2, "\n\n")) else end
    blocks = []
    for table in tables:
        lines = [f"{name} = {tomlkit.string(value).as_string()}" for name, value in table.items()]
        blocks.append("".join(f"{line}{end}" for line in (f"[[{key}]]", *lines)))
    after = end if text[at:] and not text[at:].startswith(("\n", "\r\n")) else ""
    return at, before + gap + end.join(blocks) + after


def _behind_last(text: str, key: str) -> int:
    """Return the position behind the last table of the list, or the end of the text where there is none."""
    place, inside, open_comments, found = len(text), False, False, False
    for line, end in _lines(text):
        bare = line.strip()
        if bare.startswith("["):
            inside = _first_key(bare) == key
            found |= inside
        elif not bare or bare.startswith("#"):
            # a comment belongs to the table above it if an empty line, or the end, follows it
            open_comments = open_comments and bool(bare)
            if inside and open_comments and _empty_after(text, end):
                place = end
            continue
        if inside:
            place, open_comments = end, True
    return place if found else len(text)


def _empty_after(text: str, at: int) -> bool:
    newline = text.find("\n", at)
    return not text[at : newline if newline >= 0 else len(text)].strip()


def _first_key(header: str) -> str:
    """Return the first part of the name in a header such as `[a.b]` or `[["a"]] # comment`."""
    return next(iter(tomllib.loads(header)))


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Yield each logical line, one that holds a string or a list of several lines being one, and where it ends."""
    start = at = depth = 0
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote[0] == '"':
                at += 1
            elif text.startswith(quote, at):
                at += len(quote) - 1
                while len(quote) == 3 and text[at + 1 : at + 2] == quote[0]:  # two more may stand here
                    at += 1
                quote = ""
        elif char == "#":
            newline = text.find("\n", at)
            at = (newline if newline >= 0 else len(text)) - 1
        elif char in "\"'":
            quote = char * 3 if text.startswith(char * 3, at) else char
            at += len(quote) - 1
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "\n" and depth == 0:
            yield text[start : at + 1], at + 1
            start = at + 1
        at += 1
    if start < len(text):
        yield text[start:], len(text)
