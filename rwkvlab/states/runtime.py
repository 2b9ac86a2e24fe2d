"""States as other programs keep them in memory: rwkv.cpp's flat buffer, and the caches of fla and transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, FormatError, MismatchError
from rwkvlab.shapes import as_tensor
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import HasDims
from rwkvlab.states.layouts import ASSUMED, RUN_TIME, check_orientation, note_of
from rwkvlab.states.names import parse_name
from rwkvlab.states.reading import ARCHS, finite, make_card, noted
from rwkvlab.states.state import State
from rwkvlab.tensorfile.source import Source


def read_flat(path: str | os.PathLike[str], model: HasDims | None, orientation: str | None = None) -> State:
    """Return the state in rwkv.cpp's buffer: fp32, for each layer the ffn shift [C], the attention shift [C], heads.

    A head is [V,K] for RWKV-7 and [K,V] for the older ones, unless orientation says otherwise. Nothing in the file
    tells what it is, so the model must, and the size must be exact. Raises ArgError without a model, FormatError for
    another size, NonFiniteError, PathError.
    """
    check_orientation(orientation)
    if model is None:
        raise ArgError('format="rwkv.cpp": the buffer does not say its shape; pass the model that it was made with')
    dims = model.dims
    order = orientation or RUN_TIME[dims.arch]
    head = (dims.H, dims.K, dims.V) if order == "KV" else (dims.H, dims.V, dims.K)
    with closing(Source(path)) as source:
        cells = 2 * dims.C + dims.H * dims.K * dims.V
        if source.size != dims.L * cells * 4:
            raise FormatError(
                f"{source.name}: need {dims.L * cells * 4:,} bytes for rwkv.cpp's buffer of fp32 of {dims}, got "
                f"{source.size:,}; save the buffer alone, with tofile(), or load the model that it was made with"
            )
        data = torch.empty(dims.L, cells)
        source.fill(data, 0)
        for layer, row in enumerate(data):
            finite(source.name, f"layer {layer}", row)
        named = parse_name(source.path.name).arch in ARCHS
        notes = () if named else (f"architecture {dims.arch} {ASSUMED}",)
        notes += note_of(orientation, RUN_TIME[dims.arch])
        card = make_card(source.path, "rwkv.cpp buffer", "" if named else dims.arch, notes)
    ffn, att, wkv = data.split((dims.C, dims.C, cells - 2 * dims.C), dim=1)
    wkv = wkv.reshape(dims.L, *head)
    return State(wkv.mT if order == "KV" else wkv, att_shift=att, ffn_shift=ffn, card=noted(card, wkv))


def from_fla(
    tensors: Sequence[Tensor],
    like: State | HasDims | None = None,
    att_shift: Sequence[Tensor] | None = None,
    ffn_shift: Sequence[Tensor] | None = None,
    card: StateCard | None = None,
) -> State:
    """Do what `State.from_fla` says."""
    if not isinstance(tensors, Sequence) or not tensors:
        raise ArgError(f"tensors: need a list with one tensor a layer, got {_kind(tensors)}")
    heads: list[Tensor] = []
    for layer, value in enumerate(tensors):
        name = f"tensors[{layer}]"
        head = as_tensor(name, value)
        if head.dim() == 4 and head.shape[0] != 1:
            raise MismatchError(
                f"{name}: expected [B=1,H,K,V], got {list(head.shape)}; take one row of the batch, tensor[i]"
            )
        heads.append(_alike(name, head[0] if head.dim() == 4 else head, 3, "[B,H,K,V] or [H,K,V]", heads))
    wkv = torch.stack(heads).mT  # [L,H,V,K]
    att, ffn = (
        None if given is None else _shifts(name, given, len(heads))
        for name, given in (("att_shift", att_shift), ("ffn_shift", ffn_shift))
    )
    return State(wkv, like=like, att_shift=att, ffn_shift=ffn, card=card)


def _shifts(name: str, given: object, layers: int) -> Tensor:
    if not isinstance(given, (Sequence, Tensor)) or isinstance(given, str) or len(given) != layers:
        raise ArgError(f"{name}: need {layers} tensors, one a layer, got {_kind(given)}")
    rows: list[Tensor] = []
    for layer, value in enumerate(given):
        where = f"{name}[{layer}]"
        row = as_tensor(where, value)
        while row.dim() > 1 and row.shape[0] == 1:
            row = row[0]
        rows.append(_alike(where, row, 1, "[C], [B=1,C] or [B=1,1,C]", rows))
    return torch.stack(rows)


def _alike(name: str, tensor: Tensor, dims: int, want: str, before: Sequence[Tensor]) -> Tensor:
    if tensor.dim() != dims or 0 in tensor.shape:
        raise MismatchError(f"{name}: expected {want}, got {list(tensor.shape)}; pass the tensors of one state")
    if before and tensor.shape != before[0].shape:
        want = str(list(before[0].shape))
        raise MismatchError(
            f"{name}: expected {want} as before, got {list(tensor.shape)}; pass the tensors of one state"
        )
    return finite("from_fla", name, tensor)


def _kind(value: object) -> str:
    many = f" of {len(value)}" if isinstance(value, (Sequence, Tensor)) and not isinstance(value, str) else ""
    return type(value).__name__ + many
