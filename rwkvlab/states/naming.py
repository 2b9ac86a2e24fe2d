"""name_for: the file name that a state should have, from its card, its geometry and the name it came with."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace

from rwkvlab.errors import ArgError, show
from rwkvlab.states.fits import HasDims, check_model
from rwkvlab.states.names import NameCard, parse_name
from rwkvlab.states.state import State

# (L, C) of the models published with heads of 64, and what their names call the size
_V5 = {(12, 768): "0.1B", (24, 1024): "0.4B", (24, 2048): "1.5B", (32, 2560): "3B", (32, 4096): "7B"}
_V6 = {(24, 2048): "1.6B", (32, 2560): "3B", (32, 4096): "7B", (61, 4096): "14B"}
_V7 = {
    **{(12, 768): "0.1B", (24, 1024): "0.4B", (24, 2048): "1.5B", (32, 2560): "2.9B"},
    **{(32, 4096): "7.2B", (61, 4096): "13.3B"},
}
_PUBLISHED = {"x052": _V5, "x060": _V6, "x070": _V7}
_EXAMPLES = {"arch": "x070", "kind": "World", "size": "2.9B", "purpose": "chn_文言文QA"}
_PARTS = tuple(field.name for field in fields(NameCard) if field.name not in ("text", "stem", "ext", "purpose"))
_COUNTER = re.compile(r"\d+(-state)?")  # what is left of a trainer's rwkv-12.pth


def name_for(
    state: State, purpose: str | None = None, *, model: HasDims | None = None, ext: str = ".state", **parts: object
) -> str:
    """Return a file name for a state, in the community's order, such as rwkv-x070-World-2.9B-emoji-ctx1024.state.

    What purpose and parts (fields of NameCard: arch, kind, size, data_version, date, ctx …; None leaves one out) do not
    say is taken from the state's card and geometry, where a model of it was published (1.6B, 3B … for RWKV-6; 0.1B,
    0.4B, 1.5B … for RWKV-7), from the name of the model where it is given (series, kind, data_version, size), and from
    the name on the state's card. Raises ArgError for fields that Ai00's documentation requires (arch, kind, size,
    purpose) and that nobody says, and as `NameCard.format` does.
    """
    card = replace(_known(state, model), ext=ext)
    if purpose is not None:
        card = replace(card, purpose=purpose)
    if unknown := sorted(parts.keys() - set(_PARTS)):
        raise ArgError(f"name_for: a name has no {show(unknown[0])}; it has {', '.join(_PARTS)}")
    given = {key: "" if value is None and key != "ctx" else value for key, value in parts.items()}
    card = replace(card, **given)  # type: ignore[arg-type]
    if missing := card.missing:
        example = ", ".join(f"{field}={_EXAMPLES[field]!r}" for field in missing)
        raise ArgError(
            f"name_for: {', '.join(missing)}: not known for this state, and Ai00's documentation requires them in its "
            f"name; pass them, as in name_for(state, {example})"
        )
    return card.format()


def folder_name(state: State) -> str:
    """Return the name under which `save_state` puts a state into a folder: a .safetensors that says what is known.

    Raises ArgError where the state has no purpose to be told by.
    """
    card = replace(_known(state, None), ext=".safetensors")
    if not card.purpose:
        raise ArgError(
            "save_state: path is a folder, and neither name nor purpose of this state is known; give the whole path of "
            "a file, save_state(state, folder / name_for(state, 'chn_文言文QA', …)), or name it with state.named(…)"
        )
    return card.format(required=False)


def offer(state: State, path: str | os.PathLike[str]) -> str:
    """Return, for a file that Ai00 is to list (.state, .st), a sentence that offers a better name; "" if it is good.

    Offered is the name given, with those of the fields that Ai00's documentation requires that the state knows; what
    nobody knows is asked for.
    """
    said = parse_name(path)
    if said.ext not in (".state", ".st") or not said.missing:
        return ""
    known = _known(state, None)
    better = replace(said, **{field: getattr(known, field) for field in said.missing})  # type: ignore[arg-type]
    try:
        offered = f"; offered: {better.format(required=False)}" if better.missing != said.missing else ""
    except ArgError:
        return ""
    asked = ", ".join(f"{field} (such as {_EXAMPLES[field]})" for field in better.missing)
    return (
        f"the name {show(said.text)} does not say {', '.join(said.missing)}, which Ai00's documentation asks for"
        f"{offered}{'; add ' if asked else ''}{asked}"
    )


def _known(state: State, model: HasDims | None) -> NameCard:
    """Return what a state's card, its geometry and its model say for a name; ext and quant are left out."""
    if not isinstance(state, State):
        raise ArgError(f"state: need a State, got {type(state).__name__}; open files with load_state")
    said = replace(parse_name(state.card.name), text="", stem="", ext="", quant="")
    if _COUNTER.fullmatch(said.purpose):
        said = replace(said, purpose="")
    layers, heads, values, keys = state.wkv.shape
    arch = state.card.arch
    if model is not None:
        base = parse_name(check_model("model", model).card.name)
        arch = model.dims.arch
        taken = {key: getattr(base, key) for key in ("series", "kind", "size", "data_version") if getattr(base, key)}
        said = replace(said, **taken)
    if arch and not said.arch.startswith(arch):  # x070a is an x070
        said = replace(said, arch=arch)
    size = _PUBLISHED.get(said.arch[:4], {}).get((layers, heads * keys)) if (values, keys) == (64, 64) else None
    return replace(said, size=size or said.size)
