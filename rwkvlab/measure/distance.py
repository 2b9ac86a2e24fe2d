"""How far two states lie apart, head by head, and how much of that two seeds of one task lie apart anyway."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, MismatchError, show
from rwkvlab.measure.spectrum import effective_rank, head_columns, svdvals
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.state import State

FLAT = 2.0**-23  # fp32's precision: a direction below max(V, K) * FLAT of the largest is rounding
FAR = 2.0  # a state this much further from a than from b is taken to be of b's task alone
COMPARED = ("frobenius", "relative", "cosine", "key_angle", "value_angle", "rank")
Pair = tuple[State, State]


def head_distance(
    a: State, b: State, *, rank: int = 4, floor: Iterable[State | tuple[State, State]] = ()
) -> pd.DataFrame:
    """Compare the WKV matrices of two states.

    Returns one row a head: layer, head (from 0); frobenius (norm of b - a, in state units); relative (frobenius / norm
    of a; inf where a is zero); cosine (-1..1; nan where either is zero); key_angle and value_angle, degrees in 0..90;
    rank (effective rank of b - a, see `spectrum`; 0 where they are equal). NaN and infinity are no error: a head that
    holds such, in a or in b, passes through as a row of nan.

    The angles are means of the principal angles (Björck & Golub 1973) between the spaces of the `rank` strongest right
    (key side) and left (value side) singular vectors of the two heads, of all where there are fewer; nan where a head
    has less than `rank` directions above fp32's rounding. They know neither scale nor sign, and mean little where the
    next singular value is about as large. Random spaces of 4 directions are 78 degrees apart among 64 channels (of one
    direction 84, of eight 72), and 63 among 16.

    floor: pairs of states of one task from two seeds, compared with each other; or single states of the task of a or of
    b from other seeds, each compared with the one of the two that it is nearer to (in norm, over all heads), and with
    the other too where that is less than twice as far: which of the two tasks it is of cannot be told then. Adds, for
    each of the six, a column NAME_floor, the mean over all these comparisons, and beyond, frobenius / frobenius_floor:
    at 1, seeds lie as far apart. With single states tasks whose distance is below about twice that of seeds come out
    nearer to 1 than they are (1.5 as about 1.2); with pairs they do not. Token-shifts are not compared.

    Raises MismatchError, a ValueError, where states come from models of different shape or architecture, ArgError for a
    rank below 1.
    """
    check_pair("head_distance", a, b)
    rank = int(check_range("rank", rank, 1, 2**31, whole=True))
    pairs = [(a, b), *floor_pairs("head_distance", floor, a, b)]
    bar = tqdm(pairs, delay=2, desc="distances", leave=False, disable=len(pairs) == 1)
    tables = [distances(*pair, rank) for pair in bar]
    return with_floor(tables, "frobenius")


def floor_pairs(what: str, floor: Any, a: State, b: State) -> list[Pair]:
    """Return the pairs of states whose distances make a noise floor; raises ArgError, MismatchError."""
    pairs: list[Pair] = []
    for at, item in enumerate(check_items("floor", floor)):
        alone = not isinstance(item, (tuple, list))
        pair = (item, item) if alone else tuple(item)
        if len(pair) != 2 or not all(isinstance(state, State) for state in pair):
            raise ArgError(f"floor[{at}]: need a State or a pair of them, got {show(type(item).__name__)}")
        for state in pair:
            check_pair(f"{what}: floor[{at}]", b, state)
        pairs.extend([(end, item) for end in _near(item, a, b)] if alone else [pair])
    return pairs


def _near(state: State, a: State, b: State) -> list[State]:
    """Return whichever of a and b is nearer to the state, b where they are as near; both where the other is not far.

    Of seeds of one task the nearer alone would lie too near on average.
    """
    wkv = state.wkv.detach().cpu().double()
    to_a, to_b = (float((wkv - end.wkv.detach().cpu()).norm()) for end in (a, b))
    near, far = ((a, to_a), (b, to_b)) if to_a < to_b else ((b, to_b), (a, to_a))
    return [near[0], far[0]] if far[1] < FAR * near[1] else [near[0]]


def with_floor(tables: list[pd.DataFrame], main: str) -> pd.DataFrame:
    """Return the first table with the means of the others beside it, and `main` over its floor as beyond."""
    table, *others = tables
    if others:
        for name in [name for name in table.columns if name not in ("layer", "head")]:
            table[f"{name}_floor"] = np.mean([other[name].to_numpy() for other in others], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            table["beyond"] = table[main].to_numpy() / table[f"{main}_floor"].to_numpy()
    return table


def head_table(columns: dict[str, Tensor]) -> pd.DataFrame:
    """Return a table of numbers [L,H], one row a head."""
    index = head_columns(next(iter(columns.values())))
    return pd.DataFrame({name: column.flatten().numpy() for name, column in (index | columns).items()})


def distances(a: State, b: State, rank: int) -> pd.DataFrame:
    """Return the six columns of `head_distance` for states of one shape, whatever their cards say."""
    parts, rank = [], min(rank, *a.wkv.shape[2:])
    for one, two in tqdm(zip(a.wkv, b.wkv, strict=True), total=len(a.wkv), delay=2, desc="heads", leave=False):
        x, y = (layer.detach().cpu().double() for layer in (one, two))  # [H,V,K]
        (key_x, value_x), (key_y, value_y) = subspaces(x, rank), subspaces(y, rank)
        rows = torch.stack((mean_angle(key_x, key_y), mean_angle(value_x, value_y), effective_rank(svdvals(y - x))))
        x, y = x.flatten(1), y.flatten(1)
        norm_x, norm_y, frobenius = x.norm(dim=-1), y.norm(dim=-1), (y - x).norm(dim=-1)
        relative = torch.where(norm_x == 0, torch.inf, frobenius / norm_x)
        # each side is scaled first, so that tiny states do not underflow; 0/0 leaves nan where either is zero
        cosine = ((x / norm_x[:, None]) * (y / norm_y[:, None])).sum(dim=-1).clamp(-1.0, 1.0)
        rows = torch.cat((torch.stack((frobenius, relative, cosine)), rows))
        parts.append(rows.where((x + y).isfinite().all(dim=-1), torch.nan))
    return head_table(dict(zip(COMPARED, torch.stack(parts, dim=1), strict=True)))


def check_pair(what: str, a: Any, b: Any) -> None:
    """Raise ArgError or MismatchError, as functions do that compare two states, naming the function."""
    for name, state in (("a", a), ("b", b)):
        if not isinstance(state, State):
            raise ArgError(f"{what}: {name}: need a State, got {type(state).__name__}")
    shapes, archs = [state.wkv.shape for state in (a, b)], [state.card.arch for state in (a, b)]
    if shapes[0] != shapes[1]:
        got = " and ".join(str(list(shape)) for shape in shapes)
        raise MismatchError(f"{what}: shapes differ, [L,H,V,K] {got}; compare states of one model")
    if all(archs) and archs[0] != archs[1]:
        got = " and ".join(map(show, archs))
        raise MismatchError(f"{what}: architectures differ, {got}; compare states of one model")


def subspaces(wkv: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the `rank` strongest directions of heads [H,V,K]: of the keys [H,K,rank] and of the values [H,V,rank].

    Both are nan for a head that has fewer directions, or holds NaN or infinity.
    """
    heads = wkv.detach().cpu().double()
    sound = heads.isfinite().flatten(1).all(1)  # LAPACK refuses the others
    left, sigma, right = torch.linalg.svd(heads.where(sound[:, None, None], 0), full_matrices=False)
    enough = sound & (sigma[:, rank - 1] > sigma[:, 0] * max(heads.shape[1:]) * FLAT)
    keys, values = (side[..., :rank].where(enough[:, None, None], torch.nan) for side in (right.mT, left))
    return keys, values


def mean_angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean principal angle [H], degrees, between the spaces of orthonormal columns [H,N,rank]; nan stays.

    Angles below 45 degrees are taken from their sines, as cosines near 1 know only half of the digits (Björck & Golub
    1973); of a sine that is rounding, below N 2^-48, the angle is 0.
    """
    known = (a.isfinite() & b.isfinite()).flatten(1).all(1)
    a, b = (side.where(known[:, None, None], 0) for side in (a, b))
    product = a.mT @ b
    cosines = torch.linalg.svdvals(product).clamp(max=1)
    sines = torch.linalg.svdvals(b - a @ product).flip(-1).clamp(max=1)  # angles from the smallest, as for cosines
    sines = sines.where(sines >= a.shape[1] * 2.0**-48, 0)
    angles = torch.where(sines < 0.5**0.5, sines.asin(), cosines.acos())
    return angles.rad2deg().mean(-1).where(known, torch.nan)
