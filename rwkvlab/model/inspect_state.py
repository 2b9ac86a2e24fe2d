"""What inspect_file says of a state: its kind, orientation and how sure that is, its values, the models it fits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rwkvlab.errors import MismatchError, SchemaError, show
from rwkvlab.model.containers import open_container
from rwkvlab.model.file_report import VERIFY, FileReport
from rwkvlab.model.file_values import values_of_layers
from rwkvlab.model.inspect_base import measure_weights, read_header
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.ai00json import peek_json, read_json
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import HasDims, check_geometry
from rwkvlab.states.hints import hint_against
from rwkvlab.states.layouts import ASSUMED, LAYER_KEY, OURS, SHIFTS, USUAL, Layout, find_layout
from rwkvlab.states.names import parse_name
from rwkvlab.states.reading import read_card
from rwkvlab.tensorfile import TensorFile, tensor_digest

_STATE_WORDS = ("time_state", "wkvstate", "time_offset")
_SURE = {
    "tuned .pth": f"usual: trainers write it so, but RWKV-PEFT with --fla wrote KV until 2025-02; {VERIFY}",
    "merged checkpoint": f"usual: mergers copy it from a tuned file; {VERIFY}",
    "Ai00 .state": "by layout: fp16 and its suffix are what Ai00 takes, which stores KV",
    "rwkvlab state": "certain: its own format says so",
    "safetensors": f"assumed: converted from a tuned .pth, which stores VK; {VERIFY}",
    "run-time list of the rwkv package": "by architecture: the rwkv package keeps RWKV-7 as VK, older ones as KV",
}
_KINDS = {"tuned .pth": "tuned state", "safetensors": "tuned state", "Ai00 .state": "Ai00 state"}
_KINDS |= {"run-time list of the rwkv package": "run-time list"}


def is_state(file: TensorFile) -> bool:
    """Tell whether an open file holds a state, also one in a layout that is not read, rather than weights alone."""
    layers = any(LAYER_KEY.fullmatch(key) for key in file)
    named = any(word in key for key in file for word in _STATE_WORDS)
    return file.is_list or file.metadata.get("format") == OURS or layers or (named and "emb.weight" not in file)


def state_file(file: TensorFile, blank: FileReport, models: Mapping[str, HasDims], values: bool) -> FileReport:
    """Return the report on an open file that holds a state; raises what `load_state` raises, but not for NaN."""
    archs = {model.dims.arch for model in models.values()}
    layout, card, shape, unsure = _read_layout(file, archs.pop() if len(archs) == 1 else "")
    report = _carded(blank, card, shape).replace(
        kind=_KINDS.get(layout.kind, layout.kind),
        dtypes=tuple(sorted({str(file.info(key)[0]).removeprefix("torch.") for key in layout.keys})),
        arch_from=_arch_from(layout, card),
        orientation="" if unsure else layout.order,
        sure=unsure or _sure(layout, card),
    )
    if values:
        report = _with_values(file, layout, report)
    if layout.kind == "merged checkpoint":
        report = _with_base(file.path, report, values)
    return _fitted(file.path, report, card, shape, models).judged()


def state_json(path: Path, blank: FileReport, models: Mapping[str, HasDims], values: bool) -> FileReport:
    """Return the report on the JSON of Ai00's /api/oai/states; raises what `load_state` raises."""
    card, shape = peek_json(path)
    source = "its name" if parse_name(path.name).arch == card.arch else "the model that the JSON names"
    report = _carded(blank, card, shape).replace(kind="Ai00 state JSON", arch_from=source if card.arch else "")
    report = report.replace(dtypes=("float32",), orientation="KV", sure="by layout: web-rwkv's memory order")
    if values:
        state = read_json(path)
        report = report.replace(values=values_of_layers(iter(state.wkv)), shifts=state.has_shifts)
    return _fitted(path, report, card, shape, models).judged()


def _read_layout(file: TensorFile, arch: str) -> tuple[Layout, StateCard, tuple[int, ...], str]:
    """Return layout, card and shape, and why the orientation is not known, "" if it is."""
    try:
        layout = find_layout(file, None, arch)
        return layout, *read_card(file, layout), ""
    except (SchemaError, MismatchError) as error:
        for order in ("VK", "KV"):
            with suppress(SchemaError, MismatchError):
                layout = find_layout(file, order, arch)
                return layout, *read_card(file, layout), str(error).removeprefix(f"{file.name}: ")
        raise


def _sure(layout: Layout, card: StateCard) -> str:
    if _is_assumed(card) and layout.shifts:
        return "assumed: RWKV-7 as the model given is kept as VK, older ones as KV; its file does not say which it is"
    if layout.kind == "merged checkpoint" and layout.order == "KV":
        return _SURE["Ai00 .state"]
    if layout.kind == "rwkvlab state" and any(note.endswith(USUAL) for note in card.notes):
        return "certain in this file; in the one that it was made from it was only usual"
    return _SURE[layout.kind]


def _is_assumed(card: StateCard) -> bool:
    return any(note.endswith(ASSUMED) for note in card.notes)


def _with_base(path: Path, report: FileReport, values: bool) -> FileReport:
    """Return the report on a merged checkpoint with what its weights are."""
    with open_container(path) as file:
        dims, table = read_header(file)
        report = report.sized(dims)
        if not values or report.values is None:
            return report
        found, fingerprint = measure_weights(file, table)
    spoilt = report.values.spoilt(found.first_nonfinite, found.nonfinite)
    return report.replace(fingerprint=fingerprint, values=spoilt)


def _with_values(file: TensorFile, layout: Layout, report: FileReport) -> FileReport:
    if layout.keys == ("wkv",):
        tensors = {key: file.read(key) for key in file}
        wkv, shifts = tensors["wkv"], [tensor for key, tensor in tensors.items() if key in SHIFTS]
        if tensor_digest(tensors) != file.metadata.get("sha256"):
            report = report.replace(problem="its bytes are damaged (sha256 differs); download or copy the file again")
        found = values_of_layers(wkv)
    else:
        found = values_of_layers(file.read(key) for key in layout.keys)
        shifts = [file.read(key) for pair in layout.shifts for key in pair]
    for shift in shifts:
        bad = int((~shift.isfinite()).sum())
        found = found.spoilt("the token-shifts", bad) if bad else found
    return report.replace(values=found, shifts=any(bool(shift.any()) for shift in shifts))


def _carded(blank: FileReport, card: StateCard, shape: tuple[int, ...]) -> FileReport:
    layers, heads, values, keys = shape
    known = {"arch": card.arch, "fingerprint": card.base, "template": card.template, "recipe": card.recipe}
    notes = tuple(note for note in card.notes if not note.endswith(USUAL))  # `sure` says it
    return blank.replace(L=layers, H=heads, V=values, K=keys, notes=notes, **known)


def _arch_from(layout: Layout, card: StateCard) -> str:
    if not card.arch:
        return ""
    if layout.kind == "rwkvlab state":
        assumed = any(note.startswith("architecture ") for note in card.notes)
        return "its card, for which it was assumed" if assumed else "its card"
    if layout.arch:
        return "the model given" if _is_assumed(card) else "its keys"
    return "its name"


def _fitted(
    path: Path, report: FileReport, card: StateCard, shape: tuple[int, ...], models: Mapping[str, HasDims]
) -> FileReport:
    """Return the report with the models that the state fits; a fingerprint is asked for where the card names one."""
    fits, warnings = {}, list(report.warnings)
    sure = bool(card.arch) and not _is_assumed(card)
    for name, model in models.items():
        try:
            check_geometry(card.replace(base=""), shape, model)
            check_geometry(card, shape, _known(model) if card.base else model)
        except MismatchError as error:
            fits[name] = str(error).removeprefix(f"{show(card.name or 'state')}: ")
            continue
        fits[name] = ""
        if not sure and not card.base and (why := hint_against(path, model.dims.arch)):
            what = f"{why}, the model is {ARCH_NAMES[model.dims.arch]}"
            warnings.append(f"fits {show(name)} in shape, but {what}; {VERIFY}")
    proof = "base" if card.base else "architecture" if sure else "shape"
    return report.replace(fits=fits, fits_by=proof if fits else "", warnings=tuple(warnings))


def _known(model: HasDims) -> HasDims:
    """Return the model with its fingerprint, where only its header was read."""
    known = getattr(model, "known", None)
    return known() if known else model
