"""How a state looks: one line of text, and a block of HTML with a bar for each layer and a map of all heads."""

from __future__ import annotations

import html
import math
import struct
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING

from torch import Tensor

from rwkvlab.errors import show
from rwkvlab.shapes import ARCH_NAMES

if TYPE_CHECKING:
    from rwkvlab.states.state import State

_BLOCKS = "▁▂▃▄▅▆▇█"
_MAX_LINES = 8  # notes shown; the rest is counted
# JupyterLab and nbconvert typeset $…$ and \(…\) in HTML, links included, but not inside these classes
NO_FORMULAS = "tex2jax_ignore mathjax_ignore"
MAP_WIDTH, MAP_CELL = 384, 16  # pixels: of a map, at most, and of a cell of a small one
MAP_TITLES = 512  # tooltips of a map; in a larger one each tells of several heads
COLOUR, BROKEN = (38, 132, 214), (214, 39, 118)  # of a value, the more opaque the larger, on any theme; of NaN


def escape(value: object, limit: int = 80) -> str:
    """Return text from outside, ready for HTML: control characters visible, markup inert, cut at `limit`."""
    return html.escape(show(value, limit)[1:-1])


def describe(state: State) -> str:
    """Return `<State 'name' RWKV-7 L12 H12 V64 K64, 2.2 MiB, norm 31.4 ▁▂▅█>`, bars being norms of layers."""
    name = f"{show(state.card.name)} " if state.card.name else ""
    arch = ARCH_NAMES.get(state.card.arch, show(state.card.arch)[1:-1])
    where = "" if state.wkv.device.type == "cpu" else f" on {state.wkv.device}"
    norms = head_norms(state).norm(dim=1)
    text = f"{_size(state)}, norm {float(norms.norm()):.3g} {sparkline(norms.tolist())}"
    return f"<State {name}{arch + ' ' if arch else ''}{text}{where}>"


def to_html(state: State) -> str:
    """Return geometry, origin, notes and the norm of every layer and head as HTML; text from outside is escaped."""
    card = state.card
    rows = [("made for", ARCH_NAMES.get(card.arch, escape(card.arch))), ("size", _size(state))]
    rows += [("token shift", "yes" if state.has_shifts else ""), ("recipe", escape(card.recipe, 200))]
    rows += [("parents", escape(", ".join(card.parents), 200)), ("template", escape(card.template))]
    rows += [("source", escape(card.source, 200)), ("base", escape(card.base[:16]))]
    rows += [("note", escape(note, 200)) for note in card.notes[:_MAX_LINES]]
    if len(card.notes) > _MAX_LINES:
        rows.append(("", f"… {len(card.notes) - _MAX_LINES} more notes"))
    cells = "".join(
        f'<tr><td style="text-align:left;opacity:.7">{key}</td><td style="text-align:left">{text}</td></tr>'
        for key, text in rows
        if text
    )
    norms = head_norms(state)
    return (
        f'<div class="{NO_FORMULAS}"><b>State {escape(card.name or "(no name)", 120)}</b>'
        f"{_bars(norms.norm(dim=1).tolist())}{head_map(norms.tolist(), 'norm')}"
        f'<table style="border:0">{cells}</table></div>'
    )


def head_norms(state: State) -> Tensor:
    """Return the Frobenius norm of every head, [L,H] float64 on the CPU; NaN or inf where a head holds such."""
    wkv = state.wkv.detach().flatten(2)
    norms = wkv.norm(dim=2).double().cpu()
    # very small or large states, whose squares leave the range of fp32, are rare, and worth the slower way
    odd = ~norms.isfinite() | (norms < 1e-15)
    if odd.any():
        odd &= wkv.norm(float("inf"), dim=2).cpu() != 0
        norms[odd] = wkv[odd.to(wkv.device)].double().norm(dim=1).cpu()
    return norms


def size_text(size: int) -> str:
    """Return a number of bytes in the unit that suits it, such as "16.0 MiB"."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.{1 if size < 100 * scale else 0}f} {unit}"
    return f"{size} bytes"


def _size(state: State) -> str:
    layers, heads, values, keys = state.wkv.shape
    return f"L{layers} H{heads} V{values} K{keys}, {size_text(state.wkv.nbytes)}"


def sparkline(norms: list[float], top: float | None = None) -> str:
    """Return one block character a number, its height relative to `top` (None: the largest); ? is NaN or infinity."""
    highest = top or _top(norms)
    return "".join(
        _BLOCKS[min(7, int(8 * norm / highest)) if highest else 0] if math.isfinite(norm) else "?" for norm in norms
    )


def _top(values: list[float]) -> float:
    return max((value for value in values if math.isfinite(value)), default=0.0)


def _bars(norms: list[float]) -> str:
    top = _top(norms)
    if not top:
        return ""
    bars = "".join(
        _bar(8 * layer, 40 * norm / top if math.isfinite(norm) else 40, f"layer {layer}: norm {norm:.4g}")
        for layer, norm in enumerate(norms)
    )
    label = f"Frobenius norm of each layer, at most {top:.4g}"
    head = f'<svg role="img" aria-label="{label}" width="{8 * len(norms)}" height="40" style="opacity:.8">'
    return f'<div>{head}{bars}</svg><div style="font-size:smaller">{label}</div></div>'


def _bar(x: int, height: float, title: str) -> str:
    place = f'x="{x}" y="{40 - height:.1f}" width="6" height="{height:.1f}"'
    return f'<rect {place} fill="currentColor"><title>{title}</title></rect>'


def head_map(values: list[list[float]], what: str) -> str:
    """Return a map of numbers >= 0, layers down and heads across, as SVG with tooltips; "" where all are zero.

    The colours are one tiny picture: more opaque is larger, so that it works on any theme; NaN and infinity are red.
    A map of 64 layers by 64 heads takes some 60 KB, each of its tooltips telling of eight heads.
    """
    layers, heads = len(values), len(values[0]) if values else 0
    flat = [value for row in values for value in row]
    top = _top(flat)
    if not top and all(map(math.isfinite, flat)):
        return ""
    cell = max(2, min(MAP_CELL, MAP_WIDTH // heads))
    run = min(heads, -(-layers * heads // MAP_TITLES))
    titles = []
    for layer, row in enumerate(values):
        for head in range(0, heads, run):
            some = row[head : head + run]
            which = f"head {head}" if len(some) == 1 else f"heads {head} to {head + len(some) - 1}"
            text = f"layer {layer}, {which}: {what} {' '.join(f'{value:.3g}' for value in some)}"
            place = f"M{head * cell} {layer * cell}h{len(some) * cell}v{cell}h-{len(some) * cell}z"
            titles.append(f'<path d="{place}"><title>{text}</title></path>')
    width, height = heads * cell, layers * cell
    label = f"{what} of each head: {layers} layers down, {heads} heads across, full colour is {top:.4g}"
    size = f'width="{width}" height="{height}"'
    stretched = 'preserveAspectRatio="none" style="image-rendering:pixelated"'
    picture = f'<image {size} {stretched} href="{_png(values, top)}"></image>'
    frame = "outline:1px solid rgba(128,128,128,.5);margin-top:6px"
    start = f'<svg role="img" aria-label="{label}" {size} style="{frame}">{picture}<g fill="transparent">'
    return f'<div>{start}{"".join(titles)}</g></svg><div style="font-size:smaller">{label}</div></div>'


def _png(values: list[list[float]], top: float) -> str:
    """Return a picture of one pixel a value as a data URI (PNG specification, colour type 6: RGBA of 8 bits)."""
    rows = bytearray()
    for row in values:
        rows.append(0)  # no filter
        for value in row:
            good = math.isfinite(value)
            rows += bytes((*COLOUR, round(255 * value / top) if top else 0) if good else (*BROKEN, 255))
    header = struct.pack(">2I5B", len(values[0]), len(values), 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 6)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in parts)
    file = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    return f"data:image/png;base64,{b64encode(file).decode()}"
