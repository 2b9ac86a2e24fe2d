"""The recipe of a mixture as plain data: checked, made into a State by lab's functions, and written as Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from rwkvlab.errors import ArgError, show
from rwkvlab.shapes import check_range
from rwkvlab.states.blend import lerp, mix, scale, slerp, splice, truncate
from rwkvlab.states.state import State

METHODS = ("mix", "sum", "lerp", "slerp")
BASES = ("zero", "first")
ZERO = ""  # the name of the zero state
DEFAULTS: dict[str, Any] = {"method": "mix", "gain": 1.0, "layers": None, "base": "zero", "rank": None}


def check_recipe(recipe: Any) -> dict[str, Any]:
    """Return a recipe with all its keys, in order; the one given is left as it is. Raises ArgError.

    weights: {name: number}, "" being the zero state. method: "mix" (weights >= 0, divided by their sum), "sum" (as they
    are), "lerp" and "slerp" (two states, weights 1 - t and t). gain: the mixture times a number. rank: at most so many
    directions a head, None for all. layers: [first, last] that come from the mixture, None for all; the others from
    base, "zero" or "first", the first state.
    """
    if not isinstance(recipe, Mapping) or not isinstance(recipe.get("weights"), Mapping):
        raise ArgError(f'recipe: need a dict such as {{"weights": {{"a": 0.5, "b": 0.5}}}}, got {show(recipe)}')
    if unknown := [key for key in recipe if key not in ("weights", *DEFAULTS)]:
        raise ArgError(f"recipe: no key {show(unknown[0])}; there are weights, {', '.join(DEFAULTS)}")
    found = {"weights": dict(recipe["weights"])} | {key: recipe.get(key, DEFAULTS[key]) for key in DEFAULTS}
    found["weights"] = {
        _name(name): _number(f"weight of {show(name)}", value) for name, value in found["weights"].items()
    }
    for key, known in (("method", METHODS), ("base", BASES)):
        if found[key] not in known:
            raise ArgError(f"recipe {key}: need one of {', '.join(known)}, got {show(found[key])}")
    found["gain"] = float(check_range("recipe gain", found["gain"], -1e6, 1e6))
    if found["rank"] is not None:
        found["rank"] = int(check_range("recipe rank", found["rank"], 0, 1e6, whole=True))
    if found["layers"] is not None:
        found["layers"] = _layers(found["layers"])
    _check_weights(found["method"], list(found["weights"].values()))
    return found


def build(recipe: Mapping[str, Any], read: Callable[[str], State], zero: State | None) -> State | None:
    """Return the State that a checked recipe describes; None, the zero state, where nothing says how large it is.

    read gives the states by name, zero is that of the model, None without one. Raises what they and the functions of
    `blend` raise, ArgError for layers or a rank that these states do not have.
    """
    weights = recipe["weights"]
    first = next((name for name in weights if name != ZERO), None)
    if zero is None and first is not None:
        zero = scale(read(first), 0.0).named("zero")
    if zero is None:
        return None
    layers, heads = zero.wkv.shape[:2]
    states = [zero if name == ZERO else read(name) for name in weights] or [zero]
    mixed = _blend(recipe["method"], states, list(weights.values()) or [1.0])
    if recipe["rank"] is not None and recipe["rank"] < min(zero.wkv.shape[2:]):
        mixed = truncate(mixed, recipe["rank"])
    if recipe["gain"] != 1.0:
        mixed = scale(mixed, recipe["gain"])
    if recipe["layers"] is None or recipe["layers"] == [0, layers - 1]:
        return mixed
    low, high = recipe["layers"]
    check_range("recipe layers", high, low, layers - 1, whole=True)
    base = zero if recipe["base"] == "zero" else states[0]
    return splice(base, mixed, [(layer, head) for layer in range(low, high + 1) for head in range(heads)])


def expression(recipe: Mapping[str, Any], code_of: Callable[[str], str], heads: int, layers: int, rank: int) -> str:
    """Return the Python call that makes the same state; code_of gives that of a state by name ("": the zero state).

    heads, layers and rank are those of the states: what leaves them all as they are is not written.
    """
    names, weights = list(recipe["weights"]), list(recipe["weights"].values())
    method, codes = recipe["method"], [code_of(name) for name in recipe["weights"]]
    if not names:
        return code_of(ZERO)
    if method in ("lerp", "slerp"):
        text = f"lab.{method}({codes[0]}, {codes[1]}, {weights[1]!r})"
    elif method == "mix":
        text = f"lab.mix([{', '.join(codes)}], {shares(weights)!r})"
    else:
        text = " + ".join(f"{weight!r} * {code}" for weight, code in zip(weights, codes, strict=True))
    if recipe["rank"] is not None and recipe["rank"] < rank:
        text = f"lab.truncate({text}, {recipe['rank']})"
    if recipe["gain"] != 1.0:
        text = f"lab.scale({text}, {recipe['gain']!r})"
    if recipe["layers"] is None or recipe["layers"] == [0, layers - 1]:
        return text
    low, high = recipe["layers"]
    base = codes[0] if recipe["base"] == "first" else code_of(ZERO)
    return f"lab.splice({base}, {text}, [(l, h) for l in range({low}, {high + 1}) for h in range({heads})])"


def shares(weights: list[float]) -> list[float]:
    """Return weights that sum to 1; those that do so already as they are."""
    total = math.fsum(weights)
    return list(weights) if abs(total - 1) <= 1e-9 else [weight / total for weight in weights]


def _blend(method: str, states: list[State], weights: list[float]) -> State:
    if method == "mix":
        return mix(states, shares(weights))
    if method in ("lerp", "slerp"):
        return {"lerp": lerp, "slerp": slerp}[method](states[0], states[1], weights[1])
    total = weights[0] * states[0]
    for state, weight in zip(states[1:], weights[1:], strict=True):
        total = total + weight * state
    return total


def _check_weights(method: str, weights: list[float]) -> None:
    if method == "mix" and weights:
        if min(weights) < 0:
            raise ArgError(f"recipe weights: need none below 0, got {min(weights):.6g}; method 'sum' takes any")
        if not max(weights) > 0:
            raise ArgError("recipe weights: all are 0; raise one, or take method 'sum' for the zero state")
    if method in ("lerp", "slerp"):
        if len(weights) != 2:
            raise ArgError(f"recipe weights: {method} needs two states, got {len(weights)}; take method 'mix'")
        if min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
            raise ArgError(f"recipe weights: {method} needs 1 - t and t with t in [0, 1], got {show(weights)}")


def _layers(layers: Any) -> list[int]:
    if not isinstance(layers, (list, tuple)) or len(layers) != 2:
        raise ArgError(f"recipe layers: need [first, last], got {show(layers)}")
    low = int(check_range("recipe layers: first", layers[0], 0, 10_000, whole=True))
    return [low, int(check_range("recipe layers: last", layers[1], low, 10_000, whole=True))]


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise ArgError(f"recipe weights: need names of states, got {show(name)}")
    return name


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not abs(float(value)) <= 1e6:
        raise ArgError(f"recipe: {what}: need a number in [-1e6, 1e6], got {show(value)}")
    return float(value)
