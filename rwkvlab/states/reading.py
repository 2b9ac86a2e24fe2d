"""From an open file and its layout to a State: shapes, bytes and values checked, and the card filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rwkvlab.errors import FormatError, LoadError, MismatchError, NonFiniteError, SchemaError, show
from rwkvlab.states.card import StateCard
from rwkvlab.states.layouts import SHIFTS, Layout
from rwkvlab.states.names import parse_name
from rwkvlab.states.state import State
from rwkvlab.tensorfile import TensorFile, tensor_digest
from rwkvlab.tensorfile.safetensors import strict_json

LARGE = 1e4  # states met in normal running stay far below
ARCHS = ("x052", "x060", "x070")
STORED = "stored as "  # how the note of a dtype other than fp32 begins


def read_state(file: TensorFile, layout: Layout) -> State:
    """Return the state in an open file; raises as `load_state` does."""
    return _read_own(file, layout) if layout.keys == ("wkv",) else _read_layers(file, layout)


def read_card(file: TensorFile, layout: Layout) -> tuple[StateCard, tuple[int, ...]]:
    """Return card and shape [L,H,V,K] without reading a tensor; raises as `load_state` does."""
    if layout.keys == ("wkv",):
        return _own_card(file, layout), _own_shape(file, layout)
    heads, rows, columns = _layer_shape(file, layout)
    size = (columns, rows) if layout.order == "KV" else (rows, columns)
    return _card(file, layout), (len(layout.keys), heads, *size)


def _layer_shape(file: TensorFile, layout: Layout) -> tuple[int, ...]:
    """Return the one shape that all layers have; raises MismatchError."""
    first = file.info(layout.keys[0])[1]
    for key in layout.keys:
        shape = file.info(key)[1]
        if len(shape) != 3 or 0 in shape or shape != first:
            want = list(first) if len(first) == 3 and 0 not in first else "[H,V,K]"
            raise MismatchError(
                f"{file.name}: {_field(file, key)}: expected {want} as in every layer, got {list(shape)}; "
                "save it in this shape"
            )
    heads, rows, columns = first
    across, down, other = (rows, columns, "VK") if layout.order == "KV" else (columns, rows, "KV")
    width = heads * across
    for key in (key for pair in layout.shifts for key in pair):
        if (shape := file.info(key)[1]) != (width,):
            turned = f", or pass orientation={other!r}" if shape == (heads * down,) else ""
            raise MismatchError(
                f"{file.name}: {_field(file, key)}: expected a token-shift [C={width}] beside matrices {list(first)} "
                f"({layout.order}), got {list(shape)}; save the list as it was{turned}"
            )
    return first


def _read_layers(file: TensorFile, layout: Layout) -> State:
    wkv = torch.empty(len(layout.keys), *_layer_shape(file, layout))  # [L,H,V,K], or [L,H,K,V] until turned
    for layer, key in enumerate(layout.keys):
        wkv[layer] = finite(file.name, _field(file, key), file.read(key))
    card = noted(_card(file, layout), wkv)
    att, ffn = (
        [finite(file.name, _field(file, pair[i]), file.read(pair[i])) for pair in layout.shifts] for i in (0, 1)
    )
    return State(
        wkv.transpose(2, 3) if layout.order == "KV" else wkv,
        att_shift=torch.stack(att) if att else None,
        ffn_shift=torch.stack(ffn) if ffn else None,
        card=card,
    )


def _field(file: TensorFile, key: str) -> str:
    return f"item {key} of its list" if file.is_list else key


def _own_shape(file: TensorFile, layout: Layout) -> tuple[int, ...]:
    """Return [L,H,V,K]; raises MismatchError, also for token-shifts that do not go with it."""
    shape = file.info("wkv")[1]
    if len(shape) != 4 or 0 in shape:
        raise MismatchError(f"{file.name}: wkv: expected [L,H,V,K], got {list(shape)}; save the state again")
    layers, heads, *size = shape
    rows, columns = reversed(size) if layout.order == "KV" else size
    width = heads * columns
    for key in set(SHIFTS) & set(file):
        if (got := file.info(key)[1]) != (layers, width):
            want = f"[L={layers}, C={width}]"
            raise MismatchError(f"{file.name}: {key}: expected {want}, got {list(got)}; save the state again")
    return layers, heads, rows, columns


def _read_own(file: TensorFile, layout: Layout) -> State:
    _own_shape(file, layout)
    tensors = {key: file.read(key) for key in file}
    if tensor_digest(tensors) != file.metadata.get("sha256"):
        raise FormatError(f"{file.name}: its bytes are damaged (sha256 differs); download or copy the file again")
    parts = {key: finite(file.name, key, tensor) for key, tensor in tensors.items()}
    wkv = parts["wkv"].transpose(-1, -2) if layout.order == "KV" else parts["wkv"]
    card = noted(_own_card(file, layout), wkv)
    return State(wkv, att_shift=parts.get("att_shift"), ffn_shift=parts.get("ffn_shift"), card=card)


def _own_card(file: TensorFile, layout: Layout) -> StateCard:
    """Return the card that the file carries, completed by what is seen here."""
    try:
        saved = StateCard.from_dict(strict_json("card", file.metadata.get("card", "{}").encode("utf-8", "replace")))
    except LoadError as error:
        what = str(error).partition("; ")[0]
        raise SchemaError(f"{file.name}: {what}; save the state again") from error
    if not re.fullmatch("([0-9a-f]{64})?", saved.base):
        raise SchemaError(
            f"{file.name}: card.base: need 64 hex digits or nothing, got {show(saved.base)}; save the state again"
        )
    here = _card(file, replace(layout, arch=saved.arch))
    notes = tuple(dict.fromkeys((*saved.notes, *here.notes)))
    return saved.replace(name=saved.name or here.name, arch=saved.arch or here.arch, source=here.source, notes=notes)


def finite(name: str, key: str, tensor: Tensor) -> Tensor:
    """Return the tensor as fp32; raises NonFiniteError with the number of bad cells and the first of them."""
    exact = tensor.float()
    bad = ~exact.isfinite()
    if count := int(bad.sum()):
        first = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{name}: {key}: {count} of {exact.numel()} values are NaN or infinite, the first at {first}; "
            "retrain it, or use an earlier checkpoint of it"
        )
    return exact


def _card(file: TensorFile, layout: Layout) -> StateCard:
    dtypes = sorted({str(file.info(key)[0]).removeprefix("torch.") for key in layout.keys})
    stored = () if dtypes == ["float32"] else (f"{STORED}{' and '.join(dtypes)}",)
    return make_card(file.path, layout.kind, layout.arch, (*file.notes, *layout.notes), stored)


def make_card(path: Path, kind: str, arch: str, notes: Iterable[str], stored: Iterable[str] = ()) -> StateCard:
    """Return what a file, its layout and its name say about a state; the name is asked where arch is empty."""
    known = parse_name(path.name)
    notes = list(notes)
    if not arch and known.arch in ARCHS:
        arch = known.arch
        notes.append(f"architecture {arch} taken from the file name")
    return StateCard(known.stem, arch, source=f"{known.stem}{known.ext} ({kind})", notes=(*notes, *stored))


def noted(card: StateCard, wkv: Tensor) -> StateCard:
    """Return the card with a note where the values are far above those of normal running."""
    largest = float(wkv.abs().max())
    if largest <= LARGE:
        return card
    note = f"largest value {largest:.3g}, far above the states met in normal running: tuned with too high a rate?"
    return card.replace(notes=tuple(dict.fromkeys((*card.notes, note))))
