"""How a state looks: one line of text, and a small block of HTML with a bar for each layer."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from rwkvlab.errors import show
from rwkvlab.shapes import ARCH_NAMES

if TYPE_CHECKING:
    from rwkvlab.states.state import State

_BLOCKS = "▁▂▃▄▅▆▇█"
_MAX_LINES = 8  # notes shown; the rest is counted
# JupyterLab and nbconvert typeset $…$ and \(…\) in HTML, links included, but not inside these classes
NO_FORMULAS = "tex2jax_ignore mathjax_ignore"


def escape(value: object, limit: int = 80) -> str:
    """Return text from outside, ready for HTML: control characters visible, markup inert, cut at `limit`."""
    return html.escape(show(value, limit)[1:-1])


def describe(state: State) -> str:
    """Return `<State 'name' RWKV-7 L12 H12 V64 K64, 2.2 MiB, norm 31.4 ▁▂▅█>`, bars being norms of layers."""
    name = f"{show(state.card.name)} " if state.card.name else ""
    arch = ARCH_NAMES.get(state.card.arch, show(state.card.arch)[1:-1])
    where = "" if state.wkv.device.type == "cpu" else f" on {state.wkv.device}"
    total, bars = float(state.wkv.detach().norm()), sparkline(_norms(state))
    return f"<State {name}{arch + ' ' if arch else ''}{_size(state)}, norm {total:.3g} {bars}{where}>"


def to_html(state: State) -> str:
    """Return name, geometry, recipe, notes and the norm of every layer as HTML; all text from outside is escaped."""
    card = state.card
    arch = ARCH_NAMES.get(card.arch, escape(card.arch))
    rows = [("made for", arch), ("size", _size(state)), ("token shift", "yes" if state.has_shifts else "")]
    rows += [
        ("recipe", escape(card.recipe, 200)),
        ("template", escape(card.template)),
        ("source", escape(card.source, 200)),
    ]
    rows += [("base", escape(card.base[:16]))]
    rows += [("note", escape(note, 200)) for note in card.notes[:_MAX_LINES]]
    if len(card.notes) > _MAX_LINES:
        rows.append(("", f"… {len(card.notes) - _MAX_LINES} more notes"))
    cells = "".join(
        f'<tr><td style="text-align:left;opacity:.7">{key}</td><td style="text-align:left">{text}</td></tr>'
        for key, text in rows
        if text
    )
    return (
        f'<div class="{NO_FORMULAS}"><b>State {escape(card.name or "(no name)", 120)}</b>{_bars(_norms(state))}'
        f'<table style="border:0">{cells}</table></div>'
    )


def _norms(state: State) -> list[float]:
    return state.wkv.detach().flatten(1).norm(dim=1).tolist()


def _size(state: State) -> str:
    layers, heads, values, keys = state.wkv.shape
    return f"L{layers} H{heads} V{values} K{keys}, {state.wkv.numel() * 4 / 2**20:.1f} MiB"


def sparkline(norms: list[float]) -> str:
    """Return one block character a number, its height relative to the largest."""
    top = max(norms, default=0.0)
    if not 0 < top < float("inf"):
        return _BLOCKS[0] * len(norms)
    return "".join(_BLOCKS[min(7, int(8 * norm / top))] for norm in norms)


def _bars(norms: list[float]) -> str:
    top = max(norms, default=0.0)
    if not 0 < top < float("inf"):
        return ""
    bars = "".join(
        _bar(8 * layer, 40 * norm / top, f"layer {layer}: norm {norm:.4g}") for layer, norm in enumerate(norms)
    )
    label = f"Frobenius norm of each layer, at most {top:.4g}"
    head = f'<svg role="img" aria-label="{label}" width="{8 * len(norms)}" height="40" style="opacity:.8">'
    return f'<div>{head}{bars}</svg><div style="font-size:smaller">{label}</div></div>'


def _bar(x: int, height: float, title: str) -> str:
    place = f'x="{x}" y="{40 - height:.1f}" width="6" height="{height:.1f}"'
    return f'<rect {place} fill="currentColor"><title>{title}</title></rect>'
