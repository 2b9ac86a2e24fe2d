"""What inspect_file says of a state: its kind, orientation and how sure that is, its values, the models it fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rwkvlab.errors import MismatchError, SchemaError, show
from rwkvlab.model.containers import open_container
from rwkvlab.model.file_report import FileReport
from rwkvlab.model.file_values import values_of_layers
from rwkvlab.model.weights import survey
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.ai00json import peek_json, read_json
from rwkvlab.states.card import StateCard
from rwkvlab.states.fits import HasDims, check_geometry
from rwkvlab.states.hints import hint_against
from rwkvlab.states.layouts import ASSUMED, LAYER_KEY, OURS, SHIFTS, Layout, find_layout
from rwkvlab.states.names import parse_name
from rwkvlab.states.reading import read_card
from rwkvlab.tensorfile import TensorFile, tensor_digest

_STATE_WORDS = ("time_state", "wkvstate", "time_offset")
_VERIFY = "`rwkvlab verify MODEL STATE` tells by what it does"
_SURE = {
    "tuned .pth": f"usual: trainers write it so, but RWKV-PEFT with --fla wrote KV until 2025-02; {_VERIFY}",
    "merged checkpoint": f"usual: mergers copy it from a tuned file; {_VERIFY}",
    "Ai00 .state": "by layout: fp16 and its suffix are what Ai00 takes, which stores KV",
    "rwkvlab state": "certain: its own format says so",
    "safetensors": f"assumed: converted from a tuned .pth, which stores VK; {_VERIFY}",
    "run-time list of the rwkv package": "by architecture: the rwkv package keeps RWKV-7 as VK, older ones as KV",
}
_KINDS = {"tuned .pth": "tuned state", "safetensors": "tuned state", "Ai00 .state": "Ai00 state"}
_KINDS |= {"run-time list of the rwkv package": "run-time list"}


def is_state(file: TensorFile) -> bool:
    """Tell whether an open file holds a state, also one in a layout that is not read, rather than weights alone."""
    layers = any(LAYER_KEY.fullmatch(key) for key in file)
    named = any(word in key for key in file for word in _STATE_WORDS)
    return file.is_list or file.metadata.get("format") == OURS or layers or (named and "emb.weight" not in file)


def state_file(file: TensorFile, blank: FileReport, models: Sequence[HasDims], values: bool) -> FileReport:
    """Return the report on an open file that holds a state; raises what `load_state` raises, but not for NaN."""
    archs = {model.dims.arch for model in models}
    layout, unsure = _layout(file, archs.pop() if len(archs) == 1 else "")
    card, shape = read_card(file, layout)
    report = _carded(blank, card, shape).replace(
        kind=_KINDS.get(layout.kind, layout.kind),
        dtypes=tuple(sorted({str(file.info(key)[0]).removeprefix("torch.") for key in layout.keys})),
        arch_from=_arch_from(layout, card),
        orientation="" if unsure else layout.order,
        sure=unsure or _SURE[layout.kind],
    )
    if values:
        report = _with_values(file, layout, report)
    if layout.kind == "merged checkpoint":
        with open_container(file.path) as whole:
            report = report.sized(survey(whole)[0])
    return _fitted(file.path, report, card, shape, models).judged()


def state_json(path: Path, blank: FileReport, models: Sequence[HasDims], values: bool) -> FileReport:
    """Return the report on the JSON of Ai00's /api/oai/states; raises what `load_state` raises."""
    card, shape = peek_json(path)
    source = "its name" if parse_name(path.name).arch == card.arch else "the model that the JSON names"
    report = _carded(blank, card, shape).replace(kind="Ai00 state JSON", arch_from=source if card.arch else "")
    report = report.replace(dtypes=("float32",), orientation="KV", sure="by layout: web-rwkv's memory order")
    if values:
        state = read_json(path)
        report = report.replace(values=values_of_layers(iter(state.wkv)), shifts=state.has_shifts)
    return _fitted(path, report, card, shape, models).judged()


def _layout(file: TensorFile, arch: str) -> tuple[Layout, str]:
    """Return the layout, and why its orientation is not known, "" if it is."""
    try:
        return find_layout(file, None, arch), ""
    except SchemaError as error:
        try:
            return find_layout(file, "VK", arch), str(error).removeprefix(f"{file.name}: ")
        except SchemaError:
            raise error from None


def _with_values(file: TensorFile, layout: Layout, report: FileReport) -> FileReport:
    if layout.keys == ("wkv",):
        wkv, shifts = file.read("wkv"), [file.read(key) for key in SHIFTS]
        digest = tensor_digest({"wkv": wkv, **dict(zip(SHIFTS, shifts, strict=True))})
        if digest != file.metadata.get("sha256"):
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
    return blank.replace(L=layers, H=heads, V=values, K=keys, notes=card.notes, **known)


def _arch_from(layout: Layout, card: StateCard) -> str:
    if not card.arch:
        return ""
    if layout.arch:
        return "the model given" if any(note.endswith(ASSUMED) for note in card.notes) else "its keys"
    by_name = any(note.endswith("taken from the file name") for note in card.notes)
    return "its name" if by_name or layout.kind != "rwkvlab state" else "its card"


def _fitted(
    path: Path, report: FileReport, card: StateCard, shape: tuple[int, ...], models: Sequence[HasDims]
) -> FileReport:
    """Return the report with the models that the state fits; a fingerprint is asked for where the card names one."""
    fits, notes = {}, list(report.notes)
    for model in models:
        name = model.card.name
        try:
            check_geometry(card.replace(base=""), shape, model)
            check_geometry(card, shape, _known(model) if card.base else model)
        except MismatchError as error:
            fits[name] = str(error).removeprefix(f"{show(card.name or 'state')}: ")
            continue
        fits[name] = ""
        if not card.arch and not card.base:
            why = hint_against(path, model.dims.arch)
            what = f"{why}, the model is {ARCH_NAMES[model.dims.arch]}" if why else "it does not say its architecture"
            notes.append(f"fits {show(name)} in shape alone, {what}; {_VERIFY}")
    return report.replace(fits=fits, notes=tuple(notes))


def _known(model: HasDims) -> HasDims:
    """Return the model with its fingerprint, where only its header was read."""
    known = getattr(model, "known", None)
    return known() if known else model
