"""FileReport: what a file is and what is in it, as a block of text, as HTML, as JSON and as a row of a table."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rwkvlab.errors import show
from rwkvlab.model.file_values import Values
from rwkvlab.shapes import ARCH_NAMES, Dims
from rwkvlab.states.names import NameCard
from rwkvlab.states.render import NO_FORMULAS, escape, size_text, sparkline

COLUMNS = (
    *("file", "kind", "arch", "L", "H", "V", "K", "dtype", "orientation", "sure", "norm", "largest", "nonfinite"),
    *("shifts", "size", "purpose", "date", "ctx", "fits", "fits_by", "MiB", "sha256", "problem"),
)
LONG = 10_000  # characters of a text in the table
SMALL, LARGE = 1e-5, 1e4  # largest values of states met in normal running lie well between
VERIFY = "`rwkvlab verify MODEL STATE` tells by what it does"
_SAID = ("kind", "series", "size", "data_version", "purpose", "progress", "lang", "date", "ctx", "geometry", "quant")


@dataclass(frozen=True)
class FileReport:
    """What `inspect_file` found; fields are empty (0, "", None) where the file does not have or say them.

    kind names what the file is ("base model", "tuned state", "GGUF file" …); problem says why rwkvlab does not use it
    and what to do, "" if it does. container is "pth", "safetensors", "json" or "folder". arch is "x052", "x060" or
    "x070", arch_from says what told it. L H V K is the geometry, width, ffn and vocab that of weights. orientation is
    how a head is stored, "VK" or "KV", and sure how that is known. fingerprint is the base model's own, or the one that
    a state's card names. fits maps the given models to "" or the reason why the state does not fit, and fits_by says
    what that was told by: "base" (the card names it), "architecture" or "shape" alone. said is what the file name says,
    template and recipe what a card says, notes what a reader would have to assume, warnings what
    is odd about a state that can be loaded. sha256 is that of the whole file.
    """

    file: str
    bytes: int = 0
    kind: str = "unreadable"
    problem: str = ""
    container: str = ""
    arch: str = ""
    arch_from: str = ""
    L: int = 0
    H: int = 0
    V: int = 0
    K: int = 0
    width: int = 0
    ffn: int = 0
    vocab: int = 0
    tensors: int = 0
    dtypes: tuple[str, ...] = ()
    orientation: str = ""
    sure: str = ""
    shifts: bool | None = None
    values: Values | None = None
    fingerprint: str = ""
    template: str = ""
    recipe: str = ""
    fits: dict[str, str] = field(default_factory=dict)
    fits_by: str = ""
    said: NameCard = field(default_factory=lambda: NameCard("", ""))
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sha256: str = ""

    def replace(self, **changes: Any) -> FileReport:
        """Return a report with some fields changed."""
        return replace(self, **changes)

    def sized(self, dims: Dims) -> FileReport:
        """Return the report with the geometry of a model's weights."""
        sizes = {"L": dims.L, "H": dims.H, "V": dims.V, "K": dims.K}
        return self.replace(arch=dims.arch, arch_from="its keys", width=dims.C, ffn=dims.ffn, vocab=dims.vocab, **sizes)

    def judged(self) -> FileReport:
        """Return the report with what its values say: NaN is a problem for every loader, extremes are worth a note."""
        values = self.values
        if self.problem or values is None:
            return self
        if values.nonfinite:
            what = f"holds {values.nonfinite} NaN or infinite values, the first in {values.first_nonfinite}"
            report = self.replace(problem=f"{what}; retrain it, or get an undamaged copy")
            return report.replace(fits={name: why or "it cannot be loaded" for name, why in self.fits.items()})
        note = ""
        if values.layer_norms and not values.largest:
            note = "all values are zero: it does what the zero state does"
        elif values.layer_norms and not SMALL <= values.largest <= LARGE:
            how = "above" if values.largest > LARGE else "below"
            note = f"largest value {values.largest:.3g}, far {how} those of states met in normal running"
        return self.replace(warnings=(*self.warnings, note)) if note else self

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON: what is not a finite number is None, half a surrogate pair is escaped."""
        found = asdict(self)
        found["said"] = {key: value for key, value in found["said"].items() if value}
        return _plain(found)

    def row(self) -> dict[str, Any]:
        """Return the report as one row of the table of `inspect_files`; its texts cannot act on a terminal."""
        values, said = self.values or Values(), self.said
        row: dict[str, Any] = {"file": self.file, "kind": self.kind, "arch": self.arch}
        row |= {"L": self.L or None, "H": self.H or None, "V": self.V or None, "K": self.K or None}
        row |= {"dtype": " ".join(self.dtypes), "orientation": self.orientation}
        row["sure"] = re.split("[:;]", self.sure)[0] if self.orientation else ""
        row["norm"] = math.hypot(*values.layer_norms) if values.layer_norms else math.nan
        row |= {"largest": values.largest, "nonfinite": values.nonfinite, "shifts": self.shifts}
        row |= {"size": said.size, "purpose": said.purpose, "date": said.date, "ctx": said.ctx}
        row["fits"] = "; ".join(name if not why else f"not {name}" for name, why in self.fits.items())
        row |= {"fits_by": self.fits_by, "MiB": self.bytes / 2**20, "sha256": self.sha256, "problem": self.problem}
        return {key: show(value, LONG)[1:-1] if isinstance(value, str) else value for key, value in row.items()}

    def __repr__(self) -> str:
        lines = [f"  {key:<12}{text}" for key, text in self._lines()]
        return "\n".join([show(self.file, 200)[1:-1], *lines])

    def _repr_html_(self) -> str:
        left = '<td style="text-align:left'
        cells = "".join(
            f'<tr>{left};opacity:.7">{key}</td>{left}">{escape(text, 600)}</td></tr>' for key, text in self._lines()
        )
        head = f'<div class="{NO_FORMULAS}"><b>{escape(self.file, 200)}</b>'
        return f'{head}<table style="border:0">{cells}</table></div>'

    def _lines(self) -> list[tuple[str, str]]:
        """Return the block of text: a word, and what is known under it; nothing in it can act on a terminal."""
        lines = [("is", f"{self.kind}{f' ({self.container})' if self.container else ''}, {size_text(self.bytes)}")]
        lines += [("problem", self.problem)]
        if self.L:
            arch = ARCH_NAMES.get(self.arch, self.arch) or "an architecture that it does not say"
            lines += [("made for", f"{arch}{f' (by {self.arch_from})' if self.arch_from else ''}")]
            sizes = (("L", self.L), ("C", self.width), ("H", self.H), ("V", self.V), ("K", self.K), ("ffn ", self.ffn))
            geometry = " ".join(f"{letter}{size}" for letter, size in (*sizes, ("vocabulary ", self.vocab)) if size)
            lines += [("geometry", f"{geometry}; {self.tensors} tensors of {' and '.join(self.dtypes)}")]
        lines += [("orientation", f"{self.orientation or 'not known'}: {self.sure}" if self.sure else "")]
        lines += [("values", text) for text in self._value_lines()]
        lines += [("token shift", {None: "", True: "yes", False: "none"}[self.shifts])]
        said = ((key.replace("_", " "), getattr(self.said, key)) for key in _SAID)
        lines += [("name says", ", ".join(f"{key} {value}" for key, value in said if value))]
        lines += [("template", self.template), ("recipe", self.recipe), ("fingerprint", self.fingerprint)]
        told = {"base": "yes, it was made on it", "architecture": "yes, by shape and architecture"}
        fits = told.get(self.fits_by, f"in shape alone; {VERIFY}")
        lines += [("fits", f"{name}: {f'no: {why}' if why else fits}") for name, why in self.fits.items()]
        lines += [("warning", warning) for warning in self.warnings]
        lines += [("note", note) for note in self.notes[:8]] + [("sha256", self.sha256)]
        return [(key, show(text, 600)[1:-1]) for key, text in lines if text]

    def _value_lines(self) -> list[str]:
        values = self.values
        if values is None:
            return []
        lines = [f"from {values.low:.4g} to {values.high:.4g}{f' in {values.where}' if values.where else ''}"]
        if values.layer_norms:
            norms = values.layer_norms
            lines = [f"{lines[0]}; norms of layers {min(norms):.4g} to {max(norms):.4g} {sparkline(list(norms))}"]
        if values.nonfinite:
            lines.append(f"{values.nonfinite} are NaN or infinite, the first in {values.first_nonfinite}")
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
