"""Downloads: the last answers as a file for the browser."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rwkvlab.measure.comparing.comparison import Comparison

FILES = {"html": ("answers.html", "text/html"), "csv": ("answers.csv", "text/csv")}


def file_of(result: Comparison, kind: str) -> tuple[str, str, bytes]:
    """Return the name, the MIME type and the bytes that `Comparison.to_html` or `to_csv` ("html", "csv") writes."""
    name, mime = FILES[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = (result.to_html if kind == "html" else result.to_csv)(Path(folder) / name)
        return name, mime, path.read_bytes()
