"""load_state and save_state: a state file of any layout becomes a State and back, the right way round."""

from __future__ import annotations

import json
import os
import warnings
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, SaveError, show
from rwkvlab.hub import fetch
from rwkvlab.shapes import ARCH_NAMES, DTYPES
from rwkvlab.states.ai00json import is_json, peek_json, read_json
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import TAKEN, check_model
from rwkvlab.states.hints import hint_against
from rwkvlab.states.layouts import ASSUMED, OURS, SHIFTS, VERSION, find_layout
from rwkvlab.states.naming import folder_name
from rwkvlab.states.reading import STORED, read_card, read_state
from rwkvlab.states.runtime import read_flat
from rwkvlab.states.state import HasDims, State, check_fits
from rwkvlab.tensorfile import read_tensors, tensor_digest, write_pth, write_safetensors
from rwkvlab.tensorfile.source import as_path

HALF_MAX = 65504.0
SUFFIXES = (".pth", ".state", ".st", ".safetensors")


def load_state(
    path: str | os.PathLike[str],
    model: HasDims | None = None,
    *,
    orientation: str | None = None,
    any_base: bool = False,
    format: str | None = None,
) -> State:
    """Read a state; what kind of file it is, its content decides.

    Read are: tuned .pth, Ai00's .state, rwkvlab's .safetensors, checkpoints with a state merged in, the list of 3L
    tensors that PyPI's `rwkv` keeps (torch.save of it; with token-shifts), the JSON of Ai00's /api/oai/states (with
    token-shifts), and with format="rwkv.cpp", which needs a model, rwkv.cpp's buffer of fp32 as it is in memory.

    path may also be "owner/repo/file" on the Hugging Face Hub. With a model the state is checked against it, and a
    warning tells where no card or name says so, but something hints that the state was made for another architecture.
    orientation says how the file stores a head, "VK" ([H,V,K], as trainers do) or "KV" ([H,K,V], as Ai00 does); None
    tells it from the file: see `layouts.find_layout`. What had to be assumed stands in `state.card.notes`. any_base
    takes the base model's fingerprint off the card, so that the state can be mounted on any model that it fits.

    Raises PathError, LoadError of a kind (UnsafeFileError, FormatError, SchemaError: keys, NonFiniteError: NaN, …),
    ArgError, and MismatchError for a file of weights or a state that does not fit the model.
    """
    if format not in (None, "rwkv.cpp"):
        raise ArgError(f'format: need None (the content tells) or "rwkv.cpp", got {show(format)}')
    if model is not None:
        check_model("model", model)
    local = fetch(path)
    if format == "rwkv.cpp":
        state = read_flat(local, model, orientation)
    elif is_json(local):
        state = read_json(local, orientation)
    else:
        with read_tensors(local) as file:
            state = read_state(file, find_layout(file, orientation, _arch(model)))
    if any_base and state.card.base:
        notes = (*state.card.notes, f"any_base: made on another base model, {state.card.base[:12]}…")
        state = state.replace(card=state.card.replace(base="", notes=notes))
    if model is not None:
        check_fits(state, model)
        sure = state.card.arch and not any(note.endswith(ASSUMED) for note in state.card.notes)
        if not sure and not state.card.base and (why := hint_against(local, model.dims.arch)):
            why = f"{why}, the model is {ARCH_NAMES[model.dims.arch]}"
            warnings.warn(f"{show(local.name)}: {why}; make sure that it was tuned on this model", stacklevel=2)
            state = state.replace(card=state.card.replace(notes=(*state.card.notes, why)))
        elif not state.card.arch:  # a file that rwkvlab writes of it later can say more than this one
            note = f"architecture {model.dims.arch} {TAKEN}"
            state = state.replace(card=state.card.replace(arch=model.dims.arch, notes=(*state.card.notes, note)))
    return state


def _arch(model: HasDims | None) -> str:
    return model.dims.arch if model is not None else ""


def peek_state(path: str | os.PathLike[str], model: HasDims | None = None) -> tuple[StateCard, tuple[int, ...]]:
    """Return card and shape [L,H,V,K] of a state file without reading its tensors; raises as load_state does."""
    if is_json(path):
        return peek_json(path)
    with read_tensors(path) as file:
        return read_card(file, find_layout(file, None, _arch(model)))


def save_state(
    state: State,
    path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    drop_shifts: bool = False,
    overwrite: bool | None = None,
) -> Path:
    """Write a state, atomically, in the layout that the suffix names; returns the path.

    .pth is the layout of trainers (`blocks.{i}.att.time_state` [H,V,K]), .state or .st Ai00's (fp16, [H,K,V]),
    .safetensors rwkvlab's own, with token-shifts, card, sha256 and writer. dtype ("fp32", "bf16", "fp16" or torch's) is
    fp32 if None, and always fp16 in .state. The first two hold neither card nor token-shifts: non-zero shifts are
    refused unless drop_shifts, with which .safetensors holds none either. Warns where values become zero in fp16.

    Where path is a folder, the state is put there, as .safetensors, under a name made from what is known of it;
    `naming.name_for` makes the full names that Ai00's documentation asks for. A file that is there is replaced unless
    overwrite is False; in a folder only if it is True. Raises ArgError, PathError, and SaveError for NaN, values above
    65504 in fp16, a file that must not be replaced, and where the system refuses; what was there before is untouched.
    """
    if not isinstance(state, State):
        raise ArgError(f"save_state: need a State, got {type(state).__name__}")
    path = as_path(path)
    if os.path.isdir(path):
        path, overwrite = path / folder_name(state), bool(overwrite)
    replaced = overwrite is None or overwrite
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ArgError(
            f"{show(path)}: need a folder, or a name ending in .pth, .state, .st or .safetensors, got {show(suffix)}"
        )
    ai00 = suffix in (".state", ".st")
    wanted = _dtype(dtype, ai00)
    name, lost = show(path.name), dict[str, int]()
    if suffix == ".safetensors":
        tensors = {
            key: _cast(name, key, getattr(state, key), wanted if key == "wkv" else torch.float32, lost)
            for key in ("wkv", *(() if drop_shifts else SHIFTS))
        }
        metadata = {"format": OURS, "version": VERSION, "order": "L,H,V,K", "sha256": tensor_digest(tensors)}
        with suppress(PackageNotFoundError):
            metadata["writer"] = f"rwkvlab {version('rwkvlab')}"
        _tell(name, lost, wanted)
        # how the tensors are stored is seen in the file itself
        notes = tuple(note for note in state.card.notes if not note.startswith(STORED))
        card = json.dumps(state.card.replace(source="", notes=notes).to_dict())
        return write_safetensors(path, tensors, metadata | {"card": card}, overwrite=replaced)
    if state.has_shifts and not drop_shifts:
        raise SaveError(
            f"{name}: a {suffix} file cannot hold the token-shifts, which are not zero here; save as .safetensors, or "
            "pass drop_shifts=True to lose them"
        )
    layers = state.wkv.detach().transpose(2, 3) if ai00 else state.wkv.detach()
    cast = {
        f"blocks.{i}.att.time_state": _cast(name, f"layer {i}", layer, wanted, lost) for i, layer in enumerate(layers)
    }
    _tell(name, lost, wanted)
    if ai00:
        return write_safetensors(path, cast, {"format": "pt"}, overwrite=replaced)
    return write_pth(path, cast, overwrite=replaced)


def _dtype(dtype: str | torch.dtype | None, ai00: bool) -> torch.dtype:
    if dtype is None:
        return torch.float16 if ai00 else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    allowed = [torch.float16] if ai00 else list(DTYPES.values())
    if found not in allowed:
        need = "fp16, the only one that Ai00 takes" if ai00 else ", ".join(DTYPES)
        raise ArgError(f"dtype: need {need}, got {show(dtype)}")
    return found


def _cast(name: str, key: str, tensor: Tensor, dtype: torch.dtype, lost: dict[str, int]) -> Tensor:
    """Return a contiguous CPU copy in dtype; raises SaveError for what it cannot hold, counts what becomes zero."""
    exact = tensor.detach().cpu()
    if not exact.isfinite().all():
        raise SaveError(f"{name}: {key}: holds NaN or infinity, which no reader accepts; nothing was written")
    if dtype == torch.float16 and exact.numel() and (largest := float(exact.abs().max())) > HALF_MAX:
        raise SaveError(f"{name}: {key}: {largest:.6g} is above fp16's {HALF_MAX:g}; save as fp32, or scale the state")
    cast = exact.to(dtype).contiguous()
    if not cast.isfinite().all():
        raise SaveError(f"{name}: {key}: {float(exact.abs().max()):.6g} is too large for {dtype}; save as fp32")
    if zeros := int(((cast == 0) & (exact != 0)).sum()):
        lost[key] = zeros
    return cast


def _tell(name: str, lost: dict[str, int], dtype: torch.dtype) -> None:
    """Warn once of all values that became zero, by the name of the tensor or layer."""
    if lost:
        where = ", ".join(list(lost)[:4]) + (f", … ({len(lost)} in all)" if len(lost) > 4 else "")
        warnings.warn(
            f"{name}: {where}: {sum(lost.values())} values are too small for {dtype} and were saved as 0", stacklevel=3
        )
