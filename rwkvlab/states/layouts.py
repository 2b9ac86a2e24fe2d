"""What kind of state a file holds, read off its keys, dtypes and metadata; everything else is refused by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from rwkvlab.errors import ArgError, FormatError, MismatchError, SchemaError, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.names import parse_name
from rwkvlab.tensorfile import TensorFile

LAYER_KEY = re.compile(r"blocks\.(0|[1-9][0-9]{0,3})\.att\.time_state", re.ASCII)
OURS = "rwkvlab-state"  # the `format` in the metadata of our own files
VERSION = "1"
SHIFTS = ("att_shift", "ffn_shift")
RUN_TIME = {"x052": "KV", "x060": "KV", "x070": "VK"}  # how PyPI's rwkv and rwkv.cpp keep a head in memory
ASSUMED = "taken from the model that it is loaded for"
USUAL = "is usual for this kind of file, not proven"  # how the note of an orientation that nothing tells ends
_REMEDY = "give a tuned .pth, an Ai00 .state, a run-time list or a .safetensors of rwkvlab"


@dataclass(frozen=True)
class Layout:
    """kind names the layout; keys are those of the layers in order ("wkv" alone in ours); order is "VK" or "KV".

    shifts holds, for a run-time list, the keys of the token-shifts of each layer: (att, ffn).
    """

    kind: str
    keys: tuple[str, ...]
    order: str
    arch: str = ""
    notes: tuple[str, ...] = ()
    shifts: tuple[tuple[str, str], ...] = ()


def find_layout(file: TensorFile, orientation: str | None, arch: str = "") -> Layout:
    """Return the layout of an open file; arch is that of the model it is meant for, "" if there is none.

    A .pth stores [H,V,K]. A safetensors file with the same keys is Ai00's, [H,K,V], if its tensors are all fp16 (Ai00
    takes nothing else) and it ends in .state or .st; with other dtypes, and neither of these endings, it is a converted
    .pth. The rest cannot be told apart ({"format": "pt"} stands in everybody's metadata): orientation must say it.
    A list of 3L tensors is the run-time state of PyPI's `rwkv` (attention shift, matrices, ffn shift of each layer):
    [H,V,K] for RWKV-7, [H,K,V] for the older ones, by the file name or else by arch, or as orientation says.
    Raises MismatchError for weights, SchemaError for keys that are none of a state, ArgError for a bad orientation.
    """
    check_orientation(orientation)
    if file.is_list:
        return _run_time_list(file, orientation, arch)
    if file.metadata.get("format") == OURS:
        return _ours(file, orientation)
    keys = _layer_keys(file)
    merged = len(keys) != len(file)
    arch = base_arch(file) if merged else ""
    notes: tuple[str, ...] = ("its state was taken out of a merged checkpoint",) if merged else ()
    kind, order = "tuned .pth" if file.format == "pth" else "safetensors", "VK"
    if file.format == "safetensors":
        half = all(file.info(key)[0] == torch.float16 for key in keys)
        named = file.path.suffix.lower() in (".state", ".st")
        if half and named:
            kind, order = "Ai00 .state", "KV"
        elif (half or named) and orientation is None:
            raise SchemaError(
                f"{file.name}: cannot tell which way round its matrices are; pass orientation='KV' if it was made for "
                "Ai00 or web-rwkv, orientation='VK' if it was converted from a tuned .pth"
            )
        elif orientation is None:
            notes += ("read as [H,V,K], the order of a tuned .pth",)
    elif orientation is None:
        notes += (f"orientation {order} {USUAL}",)
    kind = "merged checkpoint" if merged else kind
    return _turned(Layout(kind, keys, order, arch, notes), orientation)


def check_orientation(orientation: str | None) -> None:
    """Raise ArgError for anything but None, "VK" and "KV"."""
    if orientation not in (None, "VK", "KV"):
        raise ArgError(f'orientation: need None, "VK" or "KV", got {show(orientation)}')


def _turned(layout: Layout, orientation: str | None) -> Layout:
    if orientation in (None, layout.order):
        return layout
    return replace(layout, order=str(orientation), notes=(*layout.notes, *note_of(orientation, layout.order)))


def note_of(orientation: str | None, order: str) -> tuple[str, ...]:
    """Return the note for an orientation that was given in place of the usual order."""
    if orientation in (None, order):
        return ()
    return (f"orientation={orientation} was given, where this kind of file is {order}",)


def _run_time_list(file: TensorFile, orientation: str | None, arch: str) -> Layout:
    axes = [len(file.info(key)[1]) for key in file]
    if len(axes) % 5 == 0 and set(axes) == {1}:
        raise SchemaError(
            f"{file.name}: is a run-time state of RWKV-4 (a list of 5 vectors a layer), which has no matrices; make it "
            "again with RWKV-5.2, 6 or 7"
        )
    if len(axes) % 3 or 3 not in axes[1::3]:
        raise SchemaError(
            f"{file.name}: is a list of {len(axes)} tensors, need 3 a layer (attention shift, matrices, ffn shift) as "
            "in the run-time state of the rwkv package; save the whole list"
        )
    named = parse_name(file.path.name).arch
    known = named if named in RUN_TIME else arch
    if not known and orientation is None:
        raise SchemaError(
            f"{file.name}: is a run-time list, which does not say its architecture, and so not which way round its "
            "matrices are; pass model=, or orientation='VK' for RWKV-7, 'KV' for RWKV-5 and 6"
        )
    layers = range(0, len(axes), 3)
    notes = (f"architecture {arch} {ASSUMED}",) if known == arch != named else ()
    layout = Layout(
        "run-time list of the rwkv package",
        tuple(str(i + 1) for i in layers),
        RUN_TIME.get(known, str(orientation)),
        "" if known == named else known,
        notes,
        tuple((str(i), str(i + 2)) for i in layers),
    )
    return _turned(layout, orientation)


def _ours(file: TensorFile, orientation: str | None) -> Layout:
    version = file.metadata.get("version", "")
    if version != VERSION:
        raise FormatError(f"{file.name}: version: got {show(version)}, need {VERSION!r}; update rwkvlab to read it")
    if sorted(file.keys()) not in (["att_shift", "ffn_shift", "wkv"], ["wkv"]):
        need = "need wkv, att_shift and ffn_shift, or wkv alone"
        raise SchemaError(f"{file.name}: {need}, got {_some(list(file))}; save it again")
    return _turned(Layout("rwkvlab state", ("wkv",), "VK"), orientation)


def _layer_keys(file: TensorFile) -> tuple[str, ...]:
    """Return the time_state keys from layer 0 on; refuses files that are no state, or lack layers."""
    found = {int(match[1]): key for key in file if (match := LAYER_KEY.fullmatch(key))}
    others = [key for key in file if not LAYER_KEY.fullmatch(key)]
    model = "emb.weight" in file
    if not found:
        raise _refuse(file, others, model)
    if others and (not model or any("time_state" in key for key in others)):
        odd = [key for key in others if not model or "time_state" in key]
        raise SchemaError(
            f"{file.name}: {len(odd)} keys are not part of a state: {_some(odd)}; save only its time_state"
        )
    if missing := sorted(set(range(len(found))) - set(found)):
        lost = f"layers {_some(missing)} are" if len(missing) > 1 else f"layer {missing[0]} is"
        raise SchemaError(f"{file.name}: {lost} missing below layer {max(found)}; get the whole file")
    return tuple(found[layer] for layer in range(len(found)))


def _refuse(file: TensorFile, keys: list[str], model: bool) -> Exception:
    has = " ".join(keys[:5000])
    if "lora" in has.lower():
        return MismatchError(f"{file.name}: is a LoRA adapter, not a state; merge it into its base model")
    if model or "blocks.0.ln1.weight" in file:
        name = ARCH_NAMES.get(base_arch(file), "base")
        return MismatchError(f"{file.name}: is a model ({name} weights), not a state; open it with load_model")
    if "wkvstate" in has:
        return SchemaError(
            f"{file.name}: is a state in the layout of an RWKV-5 tuner (wkvstate), not read yet; {_REMEDY}"
        )
    if "time_offset" in has:
        return SchemaError(f"{file.name}: is an adapter with time_offset, not read yet; {_REMEDY}")
    if "time_state" in has:
        odd = [key for key in keys if "time_state" in key]
        return SchemaError(f"{file.name}: odd keys {_some(odd)}, need blocks.0.att.time_state and so on; rename them")
    return SchemaError(
        f"{file.name}: holds no state: no key is blocks.0.att.time_state, found {_some(keys)}; {_REMEDY}"
    )


def base_arch(file: TensorFile) -> str:
    """Return "x070", "x060", "x052" or "" for the weights in a file, read off its keys and one shape."""
    if "blocks.0.att.r_k" in file:
        return "x070"
    if "blocks.0.att.time_maa_x" in file or "blocks.0.att.time_mix_x" in file:
        return "x060"
    decay = "blocks.0.att.time_decay"  # [H,K]; in RWKV-5.1 one number a head
    shape = file.info(decay)[1] if "blocks.0.att.gate.weight" in file and decay in file else ()
    return "x052" if len(shape) > 1 and shape[1] > 1 else ""


def _some(items: list[str] | list[int]) -> str:
    text = ", ".join(show(item, 30) if isinstance(item, str) else str(item) for item in items[:4])
    return f"{text}, … ({len(items)} in all)" if len(items) > 4 else text
