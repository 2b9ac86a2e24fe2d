"""convert_state: a state file of any layout is saved in another, and says so where a value cannot stay as it was."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, SaveError, show
from rwkvlab.hub import fetch
from rwkvlab.shapes import DTYPES
from rwkvlab.states.ai00json import is_json
from rwkvlab.states.card import StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.fits import HasDims
from rwkvlab.states.layouts import Layout, find_layout
from rwkvlab.states.names import parse_name
from rwkvlab.states.naming import folder_name
from rwkvlab.states.state import State
from rwkvlab.tensorfile import TensorFile, read_tensors
from rwkvlab.tensorfile.source import as_path


def convert_state(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    model: HasDims | None = None,
    *,
    orientation: str | None = None,
    dtype: str | torch.dtype | None = None,
    drop_shifts: bool = False,
    format: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Read a state file as `load_state` does and write it as `save_state` does; returns the path of what was written.

    The suffix of target names the layout; a folder gets a .safetensors under a name made from what is known, or else
    that of the source. dtype None keeps that of the source (fp32, bf16 or fp16; other sources become fp32), so that a
    state comes back bit for bit from .pth -> .safetensors -> .pth; a .state is always fp16. Warns, with the largest
    relative error, where values are rounded, where they become zero, and once of what the card says that a .pth or
    .state cannot hold. The rest is as in `load_state`; a file that is there is refused unless overwrite.

    Raises as these two do: MismatchError for a model given as source, SaveError for token-shifts that target cannot
    hold (unless drop_shifts), values above 65504 for fp16, and a target that is there.
    """
    local = fetch(source)
    state = load_state(local, model, orientation=orientation, format=format)
    if format is not None or is_json(local):
        stored = torch.float32
    else:
        with read_tensors(local) as file:
            stored = _stored(file, find_layout(file, orientation, model.dims.arch if model is not None else ""))
    target = as_path(target)
    if os.path.isdir(target):
        target = target / _name(state, local)
    if not overwrite and os.path.lexists(target):  # early, before warnings of what was not done
        raise SaveError(f"{show(target)}: is there already; choose another name, or pass overwrite=True")
    ai00 = target.suffix.lower() in (".state", ".st")
    if dtype is None and not ai00:
        dtype = stored
    path = save_state(state, target, dtype=dtype, drop_shifts=drop_shifts, overwrite=overwrite)
    _tell_lost(state.card, target)
    written = torch.float16 if ai00 else DTYPES.get(dtype, dtype)  # type: ignore[arg-type, call-overload]
    _report(target.name, state.wkv, state.wkv.to(written).float(), str(written))
    return path


def _name(state: State, source: Path) -> str:
    """Return the name of the file in a folder: one made from what is known, or else that of the source."""
    try:
        return folder_name(state)
    except ArgError:
        return f"{parse_name(source).stem or source.stem}.safetensors"


def _tell_lost(card: StateCard, target: Path) -> None:
    """Warn of what a card says that a file without one cannot say."""
    if target.suffix.lower() not in (".pth", ".state", ".st"):
        return
    # other files name it at most in passing
    unsaid = card.arch if card.source.endswith("(rwkvlab state)") else ""
    unsaid = unsaid and not parse_name(target).arch.startswith(unsaid)
    known = {"architecture": unsaid, "base model": card.base, "template": card.template, "recipe": card.recipe}
    if lost := [what for what, value in known.items() if value]:
        parts = " and ".join([", ".join(lost[:-1]), lost[-1]] if len(lost) > 1 else lost)
        warnings.warn(
            f"{show(target.name)}: a {target.suffix.lower()} file holds no card: {parts} "
            f"{'are' if len(lost) > 1 else 'is'} lost; keep the source, or a .safetensors of it, too",
            stacklevel=3,
        )


def _stored(file: TensorFile, layout: Layout) -> torch.dtype:
    """Return the narrowest of our dtypes that holds the matrices in a file; warns where float64 loses digits."""
    dtypes = {file.info(key)[0] for key in layout.keys}
    if torch.float64 in dtypes:
        wide = torch.cat([file.read(key).double().flatten() for key in layout.keys])
        _report(file.path.name, wide, wide.float().double(), "torch.float32")
    only = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return only if only in DTYPES.values() else torch.float32


def _report(name: str, exact: Tensor, kept: Tensor, dtype: str) -> None:
    """Warn where values were rounded; `save_state` itself tells of those that became zero."""
    error = (kept - exact).abs()
    rounded = (error > 0) & (kept != 0)
    if count := int(rounded.sum()):
        largest = float((error[rounded] / exact[rounded].abs()).max())
        whole = float(error.double().norm() / exact.double().norm())
        warnings.warn(
            f"{show(name)}: {count} of {exact.numel()} values were rounded to {dtype.removeprefix('torch.')}, the "
            f"worst by {largest:.2g} of itself ({whole:.2g} of the norm of all)",
            stacklevel=3,
        )
