"""What `diff` finds out about two states: whether one was made from the other, and what else differs, as sentences."""

from __future__ import annotations

import filecmp
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from rwkvlab.errors import SchemaError, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.card import same_base
from rwkvlab.states.state import State

ROUNDING = 2.0**-8  # of a norm: the most that storing as bf16 changes
NAMED = 12  # heads named in a sentence


class Fit(NamedTuple):
    """The nearest multiple of a to b: b = scale * a + a rest of `residual` times the norm of b; and their cosine."""

    scale: float
    residual: float
    cosine: float


def nearest(a: State, b: State, *, turned: bool = False) -> Fit:
    """Return the least-squares multiple of a, its heads transposed if `turned`, that is nearest to b.

    All are nan where a state has NaN or infinity, or where either is zero.
    """
    aa = bb = ab = rest = 0.0
    for x, y in _layers(a, b, turned):
        aa, bb, ab = aa + float(x.dot(x)), bb + float(y.dot(y)), ab + float(x.dot(y))
    if not aa or not bb:
        return Fit(math.nan, math.nan, math.nan)
    scale = ab / aa
    rest = bb - scale * ab
    if rest < bb * ROUNDING:  # so small a difference is known exactly from the numbers alone
        rest = sum(float((y - scale * x).square().sum()) for x, y in _layers(a, b, turned))
    return Fit(scale, math.sqrt(rest / bb), ab / math.sqrt(aa * bb))


def _layers(a: State, b: State, turned: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the matrices of a layer of both as vectors, those of a transposed if `turned`."""
    for one, two in zip(a.wkv, b.wkv, strict=True):
        first = one.mT if turned else one
        yield first.detach().cpu().flatten().double(), two.detach().cpu().flatten().double()


def related(plain: Fit | None, turned: Fit | None, norm_a: float, norm_b: float) -> list[str]:
    """Return what b is to a, by the fits of a and of its transpose, where the shapes allow them."""
    bad = " and ".join(name for name, norm in (("a", norm_a), ("b", norm_b)) if not math.isfinite(norm))
    if bad:
        return [f"there is NaN or infinity in {bad}: such heads have no numbers below"]
    zero = [name for name, norm in (("a", norm_a), ("b", norm_b)) if norm == 0]
    if zero:
        return ["the WKV matrices of both are zero" if len(zero) == 2 else f"the WKV matrices of {zero[0]} are zero"]
    if plain and plain.residual == 0 and plain.scale == 1:
        return ["the WKV matrices are equal, number for number"]
    if plain and plain.residual <= ROUNDING:
        if abs(plain.scale - 1) <= ROUNDING:
            return [f"b is a but for rounding: {plain.residual:.2g} of its norm"]
        return [f"b is {plain.scale:.6g} times a{_rest(plain)}"]
    if turned and turned.residual <= ROUNDING:
        times = "" if abs(turned.scale - 1) <= ROUNDING else f" times {turned.scale:.6g}"
        why = "one of them was stored, or read, the other way round"
        return [f"b is a with every head transposed{times}{_rest(turned)}: {why}"]
    if plain:
        return [
            f"b is no multiple of a: the nearest, {plain.scale:.3g} times a, leaves {plain.residual:.3g} of its norm"
        ]
    return []


def _rest(fit: Fit) -> str:
    return f", but for {fit.residual:.2g} of its norm" if fit.residual else ", exactly"


def spliced(heads: pd.DataFrame) -> list[str]:
    """Return which heads are equal, up to rounding, where some are and others are not; zero heads do not count."""
    filled = heads[(heads["norm_a"] != 0) | (heads["norm_b"] != 0)]
    same = filled["frobenius"] <= ROUNDING * filled["norm_a"]
    if not same.any() or same.all():
        return []
    how = "equal" if (filled.loc[same, "frobenius"] == 0).all() else "equal but for rounding"
    few, word = (filled[~same], "the others are ") if 2 * same.sum() > len(same) else (filled[same], "")
    named = ", ".join(f"L{row.layer}H{row.head}" for row in few.head(NAMED).itertuples())
    named += ", …" if len(few) > NAMED else ""
    return [f"{same.sum()} of {len(same)} heads are {how}, as in a splice: {word}{named}"]


def shifted(a: State, b: State) -> list[str]:
    """Return how the token-shifts differ, where either state has some."""
    found = []
    for name in ("att_shift", "ffn_shift"):
        x, y = (getattr(state, name).detach().cpu().double() for state in (a, b))
        if not x.any() and not y.any():
            continue
        apart = f"{float((y - x).norm()):.3g} apart" if x.shape == y.shape else "of other shapes"
        same = x.shape == y.shape and bool((x == y).all())
        norms = f"norms {float(x.norm()):.3g} and {float(y.norm()):.3g}"
        found.append(f"{name} is equal" if same else f"{name} differs: {norms}, {apart}")
    return found


def same_files(a: Path | None, b: Path | None) -> list[str]:
    """Return whether two files hold the same bytes."""
    same = a is not None and b is not None and filecmp.cmp(a, b, shallow=False)
    return ["the files are the same, byte for byte"] if same else []


def same_kind(a: State, b: State) -> list[str]:
    """Return what does not go together: shapes, architectures, base models."""
    found, archs = [], [state.card.arch for state in (a, b)]
    if a.wkv.shape != b.wkv.shape:
        found.append(f"shapes differ, [L,H,V,K] {list(a.wkv.shape)} and {list(b.wkv.shape)}: no heads are compared")
    if all(archs) and archs[0] != archs[1]:
        named = " and ".join(ARCH_NAMES.get(arch) or show(arch, 20) for arch in archs)
        found.append(f"made for different architectures, {named}: equal numbers would not do the same")
    try:
        base = same_base(a.card.base, b.card.base)
    except SchemaError:  # a card may hold anything
        base = a.card.base == b.card.base
    return found if base else [*found, "made on different base models: equal numbers would not do the same"]
