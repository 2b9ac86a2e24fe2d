"""Difference: what `diff` found, as one page of text, as HTML with a map of the heads, and as JSON."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from rwkvlab.errors import ArgError, printable, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.columns import cut, pad
from rwkvlab.states.render import NO_FORMULAS, head_map, size_text, sparkline

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

WIDTH = 80  # columns of a line
SHOWN = 10  # heads in the table
CARD = ("arch", "base", "template", "recipe", "parents", "notes")
_HEADS = {  # column of the table: its title, how its numbers are written
    "norm_a": ("norm a", ".3g"),
    "norm_b": ("norm b", ".3g"),
    "frobenius": ("b - a", ".3g"),
    "relative": ("of a", ".3g"),
    "cosine": ("cosine", ".3f"),
    "key_angle": ("keys°", ".1f"),
    "value_angle": ("values°", ".1f"),
    "rank": ("rank", ".1f"),
    "readout_relative": ("read", ".3g"),
}
_BARS = ("norm_a", "norm_b", "frobenius", "relative", "readout_relative")
_BAR = "rgba(38, 132, 214, 0.4)"  # on any theme


@dataclass(frozen=True, eq=False)
class Difference:
    """What `diff` returns; printed, a page of at most 80 columns.

    a, b: what each state is: file, bytes, L H V K, and its card. findings: sentences. totals: norm_a, norm_b, distance
    (norm of b - a), all in state units, relative (of a), cosine, and b = scale * a + a rest of residual times b's norm;
    with a model tokens and, over these, root mean squares of all heads' read-outs: readout_a, readout_b, readout (of
    b - a), readout_relative, readout_cosine. layers: one row a layer: layer, norm_a, norm_b, distance, att_shift_a,
    ffn_shift_a, att_shift_b, ffn_shift_b (norms). heads: layer, head, norm_a, norm_b, the columns of `head_distance`,
    and with a model readout, readout_relative, readout_cosine; no rows for states of different shapes.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    findings: tuple[str, ...]
    totals: Mapping[str, float]
    layers: pd.DataFrame
    heads: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; what is not a finite number becomes None."""
        tables = {"layers": self.layers.to_dict("records"), "heads": self.heads.to_dict("records")}
        return _plain({"a": self.a, "b": self.b, "findings": self.findings, "totals": self.totals} | tables)

    def plot(self, value: str = "frobenius", ax: Any = None) -> Any:
        """Draw a column of `heads`, layers down and heads across, as `lab.plot_heads` does; returns the Axes.

        ax: matplotlib Axes, None: pyplot's current ones; nothing is shown. Raises ArgError for another column, and for
        states of different shapes, which have no heads in common.
        """
        # measures do not draw; this one asks the plots when it is told to
        from rwkvlab.plots import plot_heads

        self._check_heads("plot")
        return plot_heads(self.heads, value, ax)

    @property
    def style(self) -> Styler:
        """`heads`, those that differ most first, with bars: a pandas Styler, for a cell or `.to_html()`.

        Raises ArgError for states of different shapes.
        """
        self._check_heads("style")
        table = self.heads.sort_values("frobenius", ascending=False, kind="stable", ignore_index=True)
        styler = table[["layer", "head", *(name for name in _HEADS if name in table)]].style.hide(axis="index")
        for name in (name for name in _BARS if name in table):
            top = table[name][table[name] < math.inf].max()
            if top > 0:
                styler = styler.bar([name], color=_BAR, vmin=0, vmax=top)
        forms: dict[Any, Any] = {name: f"{{:{form}}}" for name, (_, form) in _HEADS.items() if name in table}
        return styler.format(forms, na_rep="-")

    def _check_heads(self, what: str) -> None:
        if not len(self.heads):
            a, b = ([side[letter] for letter in "LHVK"] for side in (self.a, self.b))
            raise ArgError(f"{what}: the states have no heads in common, [L,H,V,K] {a} and {b}; see .findings")

    def __repr__(self) -> str:
        lines = [*_about("a", self.a), *_about("b", self.b), *self._cards()]
        for text in self.findings:
            lines += textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")
        lines += ["", *self._layer_lines(), *self._read_lines(), *self._head_lines()]
        return printable("\n".join(cut(line, WIDTH).rstrip() for line in lines))

    def _repr_html_(self) -> str:
        page = (
            f'<div class="{NO_FORMULAS}"><pre style="white-space:pre;overflow-x:auto">{html.escape(repr(self))}</pre>'
        )
        grid = self.heads.pivot(index="layer", columns="head", values="frobenius") if len(self.heads) else None
        return page + ("" if grid is None else head_map(grid.to_numpy(float).tolist(), "norm of b - a")) + "</div>"

    def _cards(self) -> list[str]:
        """Return a line for each field in which the cards differ."""
        half, lines = (WIDTH - 14) // 2, []
        for key in CARD:
            values = [side["card"].get(key, "") for side in (self.a, self.b)]
            if values[0] != values[1]:
                shown = [cut(_value(value), half) for value in values]
                lines.append(f"{key:<10}{pad(shown[0], half)}  | {shown[1]}")
        return ["the cards differ, a | b:", *lines] if lines else []

    def _layer_lines(self) -> list[str]:
        """Return the norms of both and of b - a, in all and as a bar for each layer, on one scale."""
        sides = {"a": self.layers["norm_a"][: self.a["L"]], "b": self.layers["norm_b"][: self.b["L"]]}
        if len(self.heads):
            sides["b - a"] = self.layers["distance"]
        top = max((value for side in sides.values() for value in side if math.isfinite(value)), default=0.0)
        lines = [f"{'norm':<7}{'in all':>8}  by layer; a full bar is {top:.3g}"]
        for name, side in sides.items():
            lines.append(f"{name:<7}{_number(math.hypot(*side)):>8}  {sparkline(side.tolist(), top)}")
        if len(self.heads):
            far, cosine = _number(self.totals["relative"]), _number(self.totals["cosine"])
            lines.append(f"distance {far} of a's norm, cosine {cosine}")
        return lines

    def _read_lines(self) -> list[str]:
        if "readout" not in self.totals:
            return []
        a, b, apart, far, cosine = (
            _number(self.totals[f"readout{name}"]) for name in ("_a", "_b", "", "_relative", "_cosine")
        )
        first = f"read-outs (rms over {self.totals['tokens']} tokens): a {a}, b {b}, b - a {apart}"
        return [first, f"distance {far} of a's read-out, cosine {cosine}"]

    def _head_lines(self) -> list[str]:
        """Return a table of the heads that differ most, in norm."""
        differ = self.heads[self.heads["frobenius"] > 0]
        if not len(differ):
            return []
        names = [name for name in _HEADS if name in differ]
        some = differ.nlargest(SHOWN, "frobenius")[["layer", "head", *names]].to_dict("records")
        table = [["head", *(_HEADS[name][0] for name in names)]]
        for row in some:
            numbers = [_number(row[name], _HEADS[name][1]) for name in names]
            table.append([f"L{row['layer']:.0f}H{row['head']:.0f}", *numbers])
        sizes = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.rjust(size) for cell, size in zip(row, sizes, strict=True)) for row in table]
        count, whole = len(differ), len(self.heads)
        title = (
            f"{count} of {whole} heads differ" if count <= SHOWN else f"of {whole} heads the {SHOWN} that differ most"
        )
        legend = "of a: over a's norm; read: over a's read-out" if "readout" in differ else "of a: over a's norm"
        return ["", f"{title} ({legend})", *lines]


def _about(name: str, side: Mapping[str, Any]) -> list[str]:
    """Return two lines: what a state is called, its geometry and size; where it came from."""
    card = side["card"]
    arch = ARCH_NAMES.get(card.get("arch", ""), "")
    size = " ".join(f"{letter}{side[letter]}" for letter in "LHVK")
    what = f"{arch + ' ' if arch else ''}{size}, {size_text(side['bytes'])}"
    title = cut(show(card["name"]) if card.get("name") else "(no name)", WIDTH - 5 - len(what))
    origin = card.get("source") or side["file"] or card.get("recipe", "")
    return [f"{name}  {title}  {what}", *([f"   from {_value(origin)}"] if origin else [])]


def _value(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, (list, tuple)) else str(value)
    return show(text, 2 * WIDTH)[1:-1]


def _number(value: float, form: str = ".3g") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
