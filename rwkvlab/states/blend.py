"""New states from old ones: between two, among many, stronger or weaker, some heads from another, fewer directions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, NonFiniteError, StateOpError, show
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.card import parents_of, term_of
from rwkvlab.states.fits import check_alike, common_card
from rwkvlab.states.state import State

_PARTS = ("wkv", "att_shift", "ffn_shift")
_GROWTH = 100.0  # a layer whose norm grows more than this is worth a warning


def lerp(a: State, b: State, t: float | Sequence[float], *, extrapolate: bool = False) -> State:
    """Return (1 - t) a + t b: a at t = 0, b at t = 1, token-shifts included; t may be a list of one number a layer.

    Raises ArgError unless 0 <= t <= 1 (any finite t with extrapolate), MismatchError for states of different models.
    """
    _check("lerp", a, b)
    share, text = _by_layer(a, "t", t, lambda name, value: _fraction(name, value, extrapolate))
    return _sum("lerp", [a, b], [1 - share, share], f"lerp({term_of(a)}, {term_of(b)}, {text})")


def slerp(a: State, b: State, t: float) -> State:
    """Return the state between a and b along the arc, head by head, its norm going straight from a's to b's.

    A head is turned from the direction of a's [V,K] matrix to that of b's; where one is zero or both are (anti)parallel
    there is no arc, and the head is that of lerp. Token-shifts are those of lerp. Raises as lerp does.
    """
    t = _fraction("t", t)
    _check("slerp", a, b)
    x, y = a.wkv.double(), b.to(a.wkv.device).wkv.double()
    norm_x, norm_y = x.norm(dim=(2, 3), keepdim=True), y.norm(dim=(2, 3), keepdim=True)  # [L,H,1,1]
    product = norm_x * norm_y
    cosine = ((x * y).sum((2, 3), keepdim=True) / product.where(product > 0, 1)).clamp(-1, 1)
    arc = (product > 0) & (cosine.abs() < 1 - 1e-12)
    # where there is no arc, numbers that have a gradient stand in
    safe_x, safe_y, angle = norm_x.where(arc, 1), norm_y.where(arc, 1), cosine.where(arc, 0).acos()
    turned = (((1 - t) * angle).sin() * x / safe_x + (t * angle).sin() * y / safe_y) / angle.sin()
    wkv = (turned * ((1 - t) * norm_x + t * norm_y)).where(arc, (1 - t) * x + t * y)
    straight = _sum("slerp", [a, b], [1 - t, t], f"slerp({term_of(a)}, {term_of(b)}, {t:.9g})")
    return _sound("slerp", straight.replace(wkv=wkv.float()), [a, b])


def mix(states: Sequence[State], weights: Sequence[float], *, extrapolate: bool = False) -> State:
    """Return the weighted sum of states; the weights lie in [0, 1] (anywhere with extrapolate) and sum to 1.

    Raises StateOpError for no states, another number of weights or another sum, ArgError for a weight out of range,
    MismatchError for states of different models.
    """
    states, weights = check_items("states", states), check_items("weights", weights)
    if not states or len(states) != len(weights):
        raise StateOpError(
            f"mix: got {len(states)} states and {len(weights)} weights, need as many of both, at least one"
        )
    values = [_fraction(f"weights[{index}]", weight, extrapolate) for index, weight in enumerate(weights)]
    if abs(sum(values) - 1) > 1e-6:
        raise StateOpError(f"mix: the weights sum to {sum(values):.6g}, need 1; divide each by their sum")
    for at, state in enumerate(states):
        for other in states[: at + 1]:  # every pair: the first may not say what it was made on
            _check("mix", other, state)
    recipe = " + ".join(
        f"{value:.9g} * {term_of(state, product=True)}" for value, state in zip(values, states, strict=True)
    )
    return _sum("mix", states, values, recipe)


def scale(a: State, gain: float | Sequence[float]) -> State:
    """Return the state times a number, or each layer times one of a list, token-shifts included.

    1 leaves it, 0 is the zero state. Raises ArgError for what is not in [-1e6, 1e6], and for another number of layers.
    """
    _check("scale", a)
    factor, text = _by_layer(a, "gain", gain, lambda name, value: check_range(name, value, -1e6, 1e6))
    if isinstance(factor, Tensor):
        return _sum("scale", [a], [factor], f"scale({term_of(a)}, {text})")
    return _sound("scale", a * factor, [a])


def without(a: State, layer: int, head: int | None = None) -> State:
    """Return what `State.zero` does: the state with one head, or (None) all of a layer, set to zero."""
    layers, heads = a.wkv.shape[:2]
    layer = int(check_range("layer", layer, 0, layers - 1, whole=True))
    wkv = a.wkv.clone()
    place = f"L{layer}"
    if head is None:
        wkv[layer] = 0.0
    else:
        head = int(check_range("head", head, 0, heads - 1, whole=True))
        wkv[layer, head], place = 0.0, f"L{layer}H{head}"
    return a.replace(wkv=wkv, card=common_card([a], f"zero({term_of(a)}, {place})", parents_of(a)))


def splice(base: State, donor: State, at: Iterable[tuple[int, int]]) -> State:
    """Return `base` with the heads at [(layer, head), …], both from 0, taken from `donor`; token-shifts stay base's.

    Raises ArgError for a place that the state does not have, MismatchError for states of different models.
    """
    _check("splice", base, donor)
    layers, heads = base.wkv.shape[:2]
    places = []
    for index, place in enumerate(check_items("at", at)):
        if not isinstance(place, (tuple, list)) or len(place) != 2:
            raise ArgError(f"at[{index}]: need (layer, head), got {show(place)}")
        layer = check_range(f"at[{index}] layer", place[0], 0, layers - 1, whole=True)
        places.append((int(layer), int(check_range(f"at[{index}] head", place[1], 0, heads - 1, whole=True))))
    chosen = torch.zeros(layers, heads, 1, 1, dtype=torch.bool, device=base.wkv.device)
    for layer, head in places:
        chosen[layer, head] = True
    wkv = donor.to(base.wkv.device).wkv.where(chosen, base.wkv)
    recipe = f"splice({term_of(base)}, {term_of(donor)}, {_where(places, heads) or 'nowhere'})"
    card = common_card([base, donor], recipe, [*parents_of(base), *parents_of(donor)])
    return _sound("splice", base.replace(wkv=wkv, card=card), [base, donor])


def _where(places: list[tuple[int, int]], heads: int) -> str:
    """Return how places stand in a recipe: "L0H1, L0H3-5, L2" (runs of heads, and whole layers, are one entry)."""
    rows: dict[int, set[int]] = {}
    for layer, head in places:
        rows.setdefault(layer, set()).add(head)
    entries = []
    for layer in sorted(rows):
        if len(rows[layer]) == heads:
            entries.append(f"L{layer}")
            continue
        for head in sorted(rows[layer]):
            if head - 1 not in rows[layer]:
                last = next(end for end in range(head, heads) if end + 1 not in rows[layer])
                entries.append(f"L{layer}H{head}" + (f"-{last}" if last > head else ""))
    return ", ".join(entries)


def truncate(a: State, rank: int) -> State:
    """Return the state with the `rank` strongest directions of every head: the nearest matrix of that rank.

    0 <= rank <= min(V, K); token-shifts are kept. Raises ArgError for a rank out of range, NonFiniteError.
    """
    _check("truncate", a)
    rank = int(check_range("rank", rank, 0, min(a.wkv.shape[2:]), whole=True))
    _sound("truncate", a, [a])
    left, values, right = torch.linalg.svd(a.wkv.double(), full_matrices=False)  # [L,H,V,R] [L,H,R] [L,H,R,K]
    wkv = (left[..., :rank] * values[..., None, :rank] @ right[..., :rank, :]).float()
    card = common_card([a], f"truncate({term_of(a)}, {rank})", parents_of(a))
    return _sound("truncate", a.replace(wkv=wkv, card=card), [a])


def _fraction(name: str, value: float, extrapolate: bool | None = None) -> float:
    """Return a weight; extrapolate is None where there is no such option to name."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (not extrapolate and not 0 <= value <= 1):
        beyond = "" if extrapolate is None else " (beyond: extrapolate=True)"
        hint = "a finite number" if extrapolate else f"a number in [0, 1]{beyond}"
        raise ArgError(f"{name}: need {hint}, got {show(value)}")
    return float(value)


def _by_layer(a: State, name: str, value: Any, check: Callable[[str, Any], float]) -> tuple[float | Tensor, str]:
    """Return a checked number, or [L] of them for a list of one a layer; and how it stands in a recipe."""
    if not isinstance(value, (list, tuple)) and not getattr(value, "ndim", 0):
        number = check(name, value)
        return number, f"{number:.9g}"
    if len(value) != len(a.wkv):
        raise ArgError(f"{name}: need one number, or one for each of {len(a.wkv)} layers, got {len(value)}")
    items = value.tolist() if hasattr(value, "tolist") else value
    numbers = [check(f"{name}[{layer}]", item) for layer, item in enumerate(items)]
    return torch.tensor(numbers, device=a.wkv.device), f"[{', '.join(f'{number:.9g}' for number in numbers)}]"


def _check(what: str, *states: State) -> None:
    for state in states:
        if not isinstance(state, State):
            raise ArgError(f"{what}: need a State, got {type(state).__name__}; open one with load_state")
        check_alike(states[0], state, what)


def _sum(what: str, states: list[State], weights: Sequence[float | Tensor], recipe: str) -> State:
    """Return the sum of states times their weights, each a number or [L], one a layer."""

    def total(part: str) -> Tensor:
        first, *others = (getattr(state, part).to(states[0].wkv.device) for state in states)
        axes = (-1, *[1] * (first.dim() - 1))  # of a weight, beside [L,H,V,K] or [L,C]
        start, *rest = (w.view(axes) if isinstance(w, Tensor) else w for w in weights)
        summed = start * first
        for other, w in zip(others, rest, strict=True):
            summed = summed + w * other if isinstance(w, Tensor) else torch.add(summed, other, alpha=w)
        return summed

    card = common_card(states, recipe, [name for state in states for name in parents_of(state)])
    wkv, att, ffn = map(total, _PARTS)
    return _sound(what, State(wkv, att_shift=att, ffn_shift=ffn, card=card), states)


def _sound(what: str, result: State, inputs: list[State]) -> State:
    """Return the result; raises NonFiniteError for NaN or infinity in it, warns of a layer that has grown too much."""
    norms = _norms(result)
    for layer in (~norms.isfinite()).nonzero().flatten().tolist()[:1]:
        raise NonFiniteError(f"{what}: layer {layer} is not finite; check the states that went in")
    largest = torch.stack([_norms(state).to(norms.device) for state in inputs]).amax(0)
    for layer in (norms > _GROWTH * largest.clamp(min=1e-30)).nonzero().flatten().tolist()[:1]:
        warnings.warn(f"{what}: layer {layer} grew more than {_GROWTH:g}-fold; is that meant?", stacklevel=3)
    return result


def _norms(state: State) -> Tensor:
    """Return the norm of every layer, [L] float64: in float32 the squares of large numbers would overflow."""
    return state.wkv.detach().flatten(1).norm(dim=1, dtype=torch.float64)
