"""Tables as CSV that a spreadsheet opens as text and numbers, and never as formulas."""

from __future__ import annotations

import csv
import unicodedata

import pandas as pd

FORMULAS = tuple("=+-@＝＋－＠")  # what a cell begins with that Excel or LibreOffice may calculate
QUOTE = "'"


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as CSV (RFC 4180) in UTF-8 with a byte order mark, by which Excel knows it; texts are quoted.

    A text (a column's name too) that may be taken for a formula, or that begins with an apostrophe, gets an apostrophe
    in front: taking one off the front of every text that begins with it restores the table. Characters that UTF-8
    cannot hold are escaped.
    """
    safe = table.rename(columns=lambda name: plain(str(name)))
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[name] = safe[name].map(lambda cell: plain(cell) if isinstance(cell, str) else cell)
    text = safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    return text.encode("utf-8-sig", "backslashreplace")


def plain(text: str) -> str:
    """Return a text as a cell that no spreadsheet calculates."""
    first = next((char for char in text if unicodedata.category(char)[0] not in "CZ"), "")
    return QUOTE + text if first in FORMULAS or text.startswith(QUOTE) else text
