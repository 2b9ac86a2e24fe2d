"""Pieces: the text of single tokens, so that it can be shown whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rwkvlab.errors import RwkvLabError, show

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


def pieces(model: Model, ids: Sequence[int]) -> list[str]:
    """Return the text of each token alone, printable: ends of lines are ⏎, control and direction characters escaped.

    Bytes that are only a part of a character are shown as such (\\xe6\\x96); a token without a text of its own (end of
    text, a hole in the vocabulary, no tokenizer) by its id, [0]. Never raises for ids of the model.
    """
    try:
        tokenizer = model.tokenizer
    except RwkvLabError:
        return [f"[{token}]" for token in ids]
    known = {token: _piece(tokenizer, token) for token in set(ids)}
    return [known[token] for token in ids]


def _piece(tokenizer: object, token: int) -> str:
    try:
        if bytes_of := getattr(tokenizer, "bytes_of", None):
            text = bytes_of(token).decode("utf-8", "backslashreplace")
        else:
            text = tokenizer.decode([token])  # type: ignore[attr-defined]
            text = "" if "\ufffd" in text else text
    except Exception:  # a tokenizer from outside may fail in any way
        text = ""
    return show(text.replace("\n", "⏎"))[1:-1] if text else f"[{token}]"
