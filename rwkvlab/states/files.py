"""load_state and save_state: a state file of any layout becomes a State and back, the right way round."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, FormatError, MismatchError, NonFiniteError, SaveError, SchemaError, show
from rwkvlab.hub import fetch
from rwkvlab.states.card import StateCard
from rwkvlab.states.layouts import OURS, SHIFTS, VERSION, Layout, find_layout
from rwkvlab.states.names import parse_name
from rwkvlab.states.state import HasDims, State, check_fits
from rwkvlab.tensorfile import TensorFile, read_tensors, tensor_digest, write_pth, write_safetensors

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGE = 1e4  # states met in normal running stay far below
HALF_MAX = 65504.0


def load_state(
    path: str | os.PathLike[str],
    model: HasDims | None = None,
    *,
    orientation: str | None = None,
    any_base: bool = False,
) -> State:
    """Read a state from a tuned .pth, Ai00's .state, rwkvlab's .safetensors, or a checkpoint with a state merged in.

    path may also be "owner/repo/file" on the Hugging Face Hub. With a model the state is checked against it.
    orientation says how the file stores a head, "VK" ([H,V,K], as trainers do) or "KV" ([H,K,V], as Ai00 does); None
    tells it from the file: see `layouts.find_layout`. What had to be assumed stands in `state.card.notes`. any_base
    takes the base model's fingerprint off the card, so that the state can be mounted on any model that it fits.

    Raises PathError, LoadError of a kind (UnsafeFileError, FormatError, SchemaError: keys, NonFiniteError: NaN, …), and
    MismatchError for a file of weights or a state that does not fit the model.
    """
    local = fetch(path)
    with read_tensors(local) as file:
        layout = find_layout(file, orientation)
        state = _read_own(file, layout) if layout.keys == ("wkv",) else _read_layers(file, layout)
    if any_base and state.card.base:
        notes = (*state.card.notes, f"any_base: made on another base model, {state.card.base[:12]}…")
        state = state.replace(card=state.card.replace(base="", notes=notes))
    if model is not None:
        check_fits(state, model)
    return state


def peek_state(path: str | os.PathLike[str]) -> tuple[StateCard, tuple[int, ...]]:
    """Return card and shape [L,H,V,K] of a state file without reading its tensors; raises as load_state does."""
    with read_tensors(path) as file:
        layout = find_layout(file, None)
        if layout.keys == ("wkv",):
            return _own_card(file, layout), _own_shape(file)
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
                f"{file.name}: {key}: expected {want} as in every layer, got {list(shape)}; save it in this shape"
            )
    return first


def _read_layers(file: TensorFile, layout: Layout) -> State:
    wkv = torch.empty(len(layout.keys), *_layer_shape(file, layout))  # [L,H,V,K], or [L,H,K,V] until turned
    for layer, key in enumerate(layout.keys):
        wkv[layer] = _finite(file, key, file.read(key))
    card = _noted(_card(file, layout), wkv)
    return State(wkv.transpose(2, 3) if layout.order == "KV" else wkv, card=card)


def _own_shape(file: TensorFile) -> tuple[int, ...]:
    shape = file.info("wkv")[1]
    if len(shape) != 4 or 0 in shape:
        raise MismatchError(f"{file.name}: wkv: expected [L,H,V,K], got {list(shape)}; save the state again")
    return shape


def _read_own(file: TensorFile, layout: Layout) -> State:
    _own_shape(file)
    tensors = {key: file.read(key) for key in ("wkv", *SHIFTS)}
    if tensor_digest(tensors) != file.metadata.get("sha256"):
        raise FormatError(f"{file.name}: its bytes are damaged (sha256 differs); download or copy the file again")
    parts = {key: _finite(file, key, tensor) for key, tensor in tensors.items()}
    wkv = parts["wkv"].transpose(-1, -2) if layout.order == "KV" else parts["wkv"]
    card = _noted(_own_card(file, layout), wkv)
    try:
        return State(wkv, att_shift=parts["att_shift"], ffn_shift=parts["ffn_shift"], card=card)
    except MismatchError as error:
        raise MismatchError(f"{file.name}: {error}; save the state again") from error


def _own_card(file: TensorFile, layout: Layout) -> StateCard:
    """Return the card that the file carries, completed by what is seen here."""
    try:
        saved = StateCard.from_dict(json.loads(file.metadata.get("card", "{}")))
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, SchemaError) else "card: not JSON"
        raise SchemaError(f"{file.name}: {what}; save the state again") from error
    here = _card(file, layout)
    notes = tuple(dict.fromkeys((*saved.notes, *here.notes)))
    return saved.replace(name=saved.name or here.name, arch=saved.arch or here.arch, source=here.source, notes=notes)


def _finite(file: TensorFile, key: str, tensor: Tensor) -> Tensor:
    """Return the tensor as fp32; raises NonFiniteError with the number of bad cells and the first of them."""
    exact = tensor.float()
    bad = ~exact.isfinite()
    if count := int(bad.sum()):
        first = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{file.name}: {key}: {count} of {exact.numel()} values are NaN or infinite, the first at {first}; "
            "retrain it, or use an earlier checkpoint of it"
        )
    return exact


def _card(file: TensorFile, layout: Layout) -> StateCard:
    """Return what the file, its layout and its name say about a state."""
    known = parse_name(file.path.name)
    notes = [*file.notes, *layout.notes]
    arch = layout.arch
    if not arch and known.arch in ("x052", "x060", "x070"):
        arch = known.arch
        notes.append(f"architecture {arch} taken from the file name")
    dtypes = sorted({str(file.info(key)[0]).removeprefix("torch.") for key in layout.keys})
    if dtypes != ["float32"]:
        notes.append(f"stored as {' and '.join(dtypes)}")
    return StateCard(name=known.stem, arch=arch, source=f"{known.stem}{known.ext} ({layout.kind})", notes=tuple(notes))


def _noted(card: StateCard, wkv: Tensor) -> StateCard:
    largest = float(wkv.abs().max())
    if largest <= LARGE:
        return card
    note = f"largest value {largest:.3g}, far above the states met in normal running: tuned with too high a rate?"
    return card.replace(notes=(*card.notes, note))


def save_state(
    state: State,
    path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    drop_shifts: bool = False,
) -> Path:
    """Write a state, atomically, in the layout that the suffix names; returns the path.

    .pth is the layout of trainers (`blocks.{i}.att.time_state` [H,V,K]), .state or .st Ai00's (fp16, [H,K,V]),
    .safetensors rwkvlab's own, with token-shifts, card and a sha256. dtype ("fp32", "bf16", "fp16" or torch's) is fp32
    if None, and always fp16 in .state. The first two hold neither card nor token-shifts: non-zero shifts are refused
    unless drop_shifts. Warns where values become zero in fp16. Raises ArgError, PathError, and SaveError for NaN,
    values above 65504 in fp16, and where the system refuses; what was there before is then untouched.
    """
    if not isinstance(state, State):
        raise ArgError(f"save_state: need a State, got {type(state).__name__}")
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in (".pth", ".state", ".st", ".safetensors"):
        raise ArgError(f"{show(path)}: need a name ending in .pth, .state, .st or .safetensors, got {show(suffix)}")
    ai00 = suffix in (".state", ".st")
    wanted = _dtype(dtype, ai00)
    name = show(os.path.basename(os.fspath(path)))
    if suffix == ".safetensors":
        tensors = {
            key: _cast(name, key, getattr(state, key), wanted if key == "wkv" else torch.float32)
            for key in ("wkv", *SHIFTS)
        }
        metadata = {"format": OURS, "version": VERSION, "order": "L,H,V,K", "sha256": tensor_digest(tensors)}
        card = state.card.replace(source="")
        return write_safetensors(path, tensors, metadata | {"card": json.dumps(card.to_dict())})
    if state.has_shifts and not drop_shifts:
        raise SaveError(
            f"{name}: a {suffix} file cannot hold the token-shifts, which are not zero here; save as .safetensors, or "
            "pass drop_shifts=True to lose them"
        )
    layers = state.wkv.detach().transpose(2, 3) if ai00 else state.wkv.detach()
    cast = {f"blocks.{i}.att.time_state": _cast(name, f"layer {i}", layer, wanted) for i, layer in enumerate(layers)}
    return write_safetensors(path, cast, {"format": "pt"}) if ai00 else write_pth(path, cast)


def _dtype(dtype: str | torch.dtype | None, ai00: bool) -> torch.dtype:
    if dtype is None:
        return torch.float16 if ai00 else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    allowed = [torch.float16] if ai00 else list(DTYPES.values())
    if found not in allowed:
        need = "fp16, the only one that Ai00 takes" if ai00 else ", ".join(DTYPES)
        raise ArgError(f"dtype: need {need}, got {show(dtype)}")
    return found


def _cast(name: str, key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a contiguous CPU copy in dtype; raises SaveError for what it cannot hold, warns of what becomes zero."""
    exact = tensor.detach().cpu()
    if not exact.isfinite().all():
        raise SaveError(f"{name}: {key}: holds NaN or infinity, which no reader accepts; nothing was written")
    if dtype == torch.float16 and exact.numel() and (largest := float(exact.abs().max())) > HALF_MAX:
        raise SaveError(f"{name}: {key}: {largest:.6g} is above fp16's {HALF_MAX:g}; save as fp32, or scale the state")
    cast = exact.to(dtype).contiguous()
    if lost := int(((cast == 0) & (exact != 0)).sum()):
        warnings.warn(f"{name}: {key}: {lost} values are too small for {dtype} and were saved as 0", stacklevel=4)
    return cast
