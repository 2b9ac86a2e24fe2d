"""inspect_file: what any file is, a model, a state of some kind or none of these, and what is in it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from rwkvlab.errors import PathError, RwkvLabError, SchemaError, show
from rwkvlab.hub import fetch
from rwkvlab.model.containers import is_model_folder
from rwkvlab.model.file_report import COLUMNS, FileReport
from rwkvlab.model.inspect_base import base_report, known_models
from rwkvlab.model.inspect_state import is_state, state_file, state_json
from rwkvlab.states.ai00json import is_json
from rwkvlab.states.card import same_base
from rwkvlab.states.fits import HasDims
from rwkvlab.states.names import EXTENSIONS, parse_name
from rwkvlab.states.shelf_files import is_tensor_file
from rwkvlab.tensorfile import read_tensors
from rwkvlab.tensorfile.source import Source

BLOCK = 4 << 20  # bytes of a file that are hashed at a time
_OTHERS = (".ckpt", ".pkl", ".zip", ".tar", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".npz", ".npy")
_IS = re.compile(r"(?:this |the file )?is (?:an? )?(.+?)(?: \(|[,;]| in spite)")  # how a message names a file's kind


def inspect_file(path: str | os.PathLike[str], models: Any = (), *, values: bool = True) -> FileReport:
    """Say what a file is and what is in it; what is no model and no state is named too, and never raises.

    path: a file, the Hugging Face folder of a model, or "owner/repo/file". models: one or several base models, each a
    Model or the path of one (or a mapping of names to these), against which a state is checked; of a path only the
    header is read, and the weights where a state's card names its base. values=False reads headers only: no norms, no
    fingerprint, no sha256. Nothing in a file is run. Raises ArgError and, for models, what `load_model` raises.
    """
    known = known_models(models)
    try:
        local = fetch(path)
    except PathError as error:
        return FileReport(Path(str(path)).name, kind="missing", problem=str(error))
    blank = FileReport(local.name or str(local), bytes=_size(local), said=parse_name(local.name))
    try:
        report = _look(local, blank, known, values)
    except RwkvLabError as error:
        text = str(error)
        for given in (local, blank.file):
            text = text.removeprefix(f"{show(given)}: ")
        found = _IS.match(text)
        kind = show(found[1], 60)[1:-1] if found else "missing" if text.startswith("no such file") else blank.kind
        return blank.replace(kind=kind, problem=text + _maybe_buffer(blank, known))
    return report.replace(sha256=_sha256(local)) if values and os.path.isfile(local) else report


def inspect_files(paths: Iterable[Any], models: Any = (), *, values: bool = True) -> pd.DataFrame:
    """Return a table, one row a file; a folder that is no model stands for the files in it, see `expand`.

    Columns: file (with its folder where two are called alike), kind, arch, L, H, V, K, dtype, orientation, sure (how
    that is known), norm (Frobenius, of a state), largest (absolute value), nonfinite (count), shifts (whether there are
    token-shifts that are not zero), size, purpose, date, ctx (of the name), fits (the models that it fits, and "not"
    those that it does not), fits_by ("base", "architecture" or "shape": what that was told by), MiB, sha256, problem.
    Control and direction characters of texts are escaped. See `inspect_file`.
    """
    rows = [report.row() for report in inspect_all(paths, models, values=values)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("L", "H", "V", "K", "ctx"), "Int64"))


def inspect_all(paths: Iterable[Any], models: Any = (), *, values: bool = True) -> list[FileReport]:
    """Return the reports on files, as `inspect_files` takes them; those of files of one name are told by their folder.

    Where it takes longer than two seconds, a bar tells how far it is.
    """
    known, found = known_models(models), expand(paths)
    many = tqdm(found, delay=2, desc="inspect") if len(found) > 1 else found
    reports = [inspect_file(path, known, values=values) for path in many]
    names = [report.file for report in reports]
    return [
        report.replace(file=os.path.join(*Path(path).absolute().parts[-2:])) if names.count(report.file) > 1 else report
        for path, report in zip(found, reports, strict=True)
    ]


def expand(paths: Iterable[Any]) -> list[Any]:
    """Return the paths, each folder that is no model replaced by files in it: not those of folders in it.

    These are the files whose names end as models, states or archives do, and any that begins as a .pth, a safetensors
    file or the JSON of Ai00's /api/oai/states does; hidden files are left out.
    """
    found: list[Any] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        names = None
        if isinstance(path, (str, os.PathLike)) and os.path.isdir(path) and not is_model_folder(path):
            with suppress(OSError):  # a folder that may not be read is reported as one
                names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        if names is None:
            found.append(path)
            continue
        files = [Path(path) / name for name in names]
        found += [
            file
            for file in files
            if file.name.lower().endswith((*EXTENSIONS, *_OTHERS)) or is_tensor_file(os.fspath(file))
        ]
    return found


def _look(path: Path, blank: FileReport, models: Mapping[str, HasDims], values: bool) -> FileReport:
    if os.path.isdir(path):
        return base_report(path, blank.replace(container="folder"), values)
    if is_json(path):
        return state_json(path, blank.replace(container="json"), models, values)
    with read_tensors(path) as file:
        blank = blank.replace(container=file.format, notes=file.notes, tensors=len(file))
        if is_state(file):
            return state_file(file, blank, models, values)
        keys = file.keys()
    try:
        report = base_report(path, blank, values)
    except SchemaError as error:
        if "emb.weight" in keys or "no emb.weight" not in str(error):
            raise
        some = ", ".join(show(key, 40) for key in keys[:4]) + (", …" if len(keys) > 4 else "")
        raise SchemaError(f"holds neither an RWKV model nor a state: {some}; give one of these") from error
    alike = [name for name, model in models.items() if _same(report.fingerprint, model.card.fingerprint)]
    return report.replace(notes=(*report.notes, *(f"the same weights as {show(name)}" for name in alike)))


def _same(one: str, other: str) -> bool:
    return bool(one and other) and same_base(one, other)


def _maybe_buffer(report: FileReport, models: Mapping[str, HasDims]) -> str:
    """Return a hint where a file that says nothing has the size of rwkv.cpp's buffer for one of the models."""
    for name, model in models.items():
        dims = model.dims
        if report.bytes == 4 * dims.L * (2 * dims.C + dims.H * dims.V * dims.K):
            return f" (it has the size of rwkv.cpp's state buffer for {show(name, 40)}: format='rwkv.cpp' reads that)"
    return ""


def _size(path: Path) -> int:
    try:
        if os.path.isdir(path):
            return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
        return os.stat(path).st_size
    except OSError:
        return 0


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    try:
        with closing(Source(path)) as source:
            block = torch.empty(min(source.size, BLOCK), dtype=torch.uint8)
            for start in tqdm(range(0, source.size, BLOCK), delay=2, desc="sha256", leave=False):
                part = block[: min(BLOCK, source.size - start)]
                source.fill(part, start)
                total.update(part.numpy().data)
    except RwkvLabError:
        return ""
    return total.hexdigest()
