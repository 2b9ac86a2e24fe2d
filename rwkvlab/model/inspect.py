"""inspect_file: what any file is, a model, a state of some kind or none of these, and what is in it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import PathError, RwkvLabError, show
from rwkvlab.hub import fetch
from rwkvlab.model.containers import Container, is_model_folder, open_container
from rwkvlab.model.file_report import COLUMNS, FileReport
from rwkvlab.model.file_values import values_of_weights
from rwkvlab.model.fingerprint import Fingerprint
from rwkvlab.model.inspect_state import is_state, state_file, state_json
from rwkvlab.model.weights import survey
from rwkvlab.states.ai00json import is_json
from rwkvlab.states.card import ModelCard, same_base
from rwkvlab.states.fits import HasDims, check_model
from rwkvlab.states.names import EXTENSIONS, parse_name
from rwkvlab.tensorfile import read_tensors
from rwkvlab.tensorfile.source import Source

BLOCK = 4 << 20  # bytes of a file that are hashed at a time
_IS = re.compile(r"(?:this |the file )?is (?:an? )?(.+?)(?: \(|[,;]| in spite)")  # how a message names a file's kind


class ModelHeader:
    """A base model of which only the header was read: its geometry and name, the fingerprint when `known` asks."""

    def __init__(self, source: str | os.PathLike[str]) -> None:
        """Read the header; raises what `load_model` raises for a file that it does not take."""
        self.path = fetch(source)
        with open_container(self.path) as file:
            self.dims = survey(file)[0]
        self.card = ModelCard(self.path.name, self.dims.arch, "")

    def known(self) -> ModelHeader:
        """Return itself, the fingerprint filled in: the weights are read for it, once."""
        if not self.card.fingerprint:
            report = _base(self.path, FileReport(self.path.name), values=True)
            self.card = ModelCard(self.card.name, self.card.arch, report.fingerprint)
        return self


def inspect_file(path: str | os.PathLike[str], models: Any = (), *, values: bool = True) -> FileReport:
    """Say what a file is and what is in it; what is no model and no state is named too, and never raises.

    path: a file, the Hugging Face folder of a model, or "owner/repo/file". models: one or several base models, each a
    Model or the path of one, against which a state is checked; of a path only the header is read, and the weights where
    a state's card names its base. values=False reads headers only: no norms, no fingerprint, no sha256. Nothing in a
    file is run. Raises ArgError and, for models, what `load_model` raises.
    """
    known = known_models(models)
    try:
        local = fetch(path)
        blank = FileReport(local.name or str(local), said=parse_name(local.name))
    except PathError as error:
        return FileReport(Path(str(path)).name, problem=str(error), said=parse_name(path))
    try:
        blank = blank.replace(bytes=_size(local))
        report = _look(local, blank, known, values)
    except RwkvLabError as error:
        text = str(error)
        for given in (blank.file, local):
            text = text.removeprefix(f"{show(given)}: ")
        found = _IS.match(text)
        report = blank.replace(kind=show(found[1], 60)[1:-1] if found else blank.kind, problem=text)
    return report.replace(sha256=_sha256(local)) if values and local.is_file() else report


def inspect_files(paths: Iterable[Any], models: Any = (), *, values: bool = True) -> pd.DataFrame:
    """Return a table, one row a file; a folder that is no model stands for the model and state files in it.

    Columns: file, kind, arch, L, H, V, K, dtype, orientation, sure (how that is known), norm (Frobenius, of a state),
    largest (absolute value), nonfinite (count), shifts (whether there are token-shifts that are not zero), size,
    purpose, date, ctx (of the name), fits (the models that it fits, and "not" those that it does not), MiB, sha256,
    problem. See `inspect_file`.
    """
    known = known_models(models)
    rows = [inspect_file(path, known, values=values).row() for path in tqdm(expand(paths), delay=2, desc="inspect")]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("L", "H", "V", "K", "ctx"), "Int64"))


def expand(paths: Iterable[Any]) -> list[Any]:
    """Return the paths, folders that are no model replaced by the files in them whose names end as models' do."""
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: list[Any] = []
    for path in paths:
        if os.path.isdir(path) and not is_model_folder(path):
            names = sorted(os.listdir(path))
            found += [Path(path) / name for name in names if name.lower().endswith((*EXTENSIONS, ".json", ".ckpt"))]
        else:
            found.append(path)
    return found


def known_models(models: Any) -> list[HasDims]:
    """Return models given as one or several Models or paths; of a path the header is read. Raises as load_model."""
    single = isinstance(models, (str, os.PathLike)) or hasattr(models, "dims") or not isinstance(models, Iterable)
    given: Sequence[Any] = [models] if single else list(models)
    made = [ModelHeader(item) if isinstance(item, (str, os.PathLike)) else item for item in given]
    return [check_model(f"models[{index}]", item) for index, item in enumerate(made)]


def _look(path: Path, blank: FileReport, models: list[HasDims], values: bool) -> FileReport:
    if path.is_dir():
        return _base(path, blank.replace(container="folder"), values)
    if is_json(path):
        return state_json(path, blank.replace(container="json"), models, values)
    with read_tensors(path) as file:
        blank = blank.replace(container=file.format, notes=file.notes, tensors=len(file))
        if is_state(file):
            return state_file(file, blank, models, values)
    report = _base(path, blank, values)
    same = [m for m in models if report.fingerprint and m.card.fingerprint]
    same = [m for m in same if same_base(report.fingerprint, m.card.fingerprint)]
    return report.replace(notes=(*report.notes, *(f"the same weights as {show(m.card.name)}" for m in same)))


def _base(path: Path, blank: FileReport, values: bool) -> FileReport:
    """Return the report on a base model; raises LoadError for anything else."""
    with open_container(path) as file:
        dims, table = survey(file)
        dtypes = sorted({str(file.info(key)[0]).removeprefix("torch.") for key in table})
        report = blank.sized(dims).replace(kind="base model", dtypes=tuple(dtypes), tensors=len(file.keys()))
        if not values:
            return report
        mark = Fingerprint()
        found = values_of_weights(_weights(file, table, mark, report.file))
    return report.replace(values=found, fingerprint=mark.hex()).judged()


def _weights(
    file: Container, table: dict[str, tuple[int, ...]], mark: Fingerprint, name: str
) -> Iterator[tuple[str, Tensor]]:
    """Read the weights one by one, and add them to the fingerprint."""
    for key, shape in tqdm(table.items(), delay=2, desc=show(name, 40), leave=False):
        tensor = file.read(key).reshape(shape)
        mark.add(key, tensor)
        yield key, tensor


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
        return path.stat().st_size
    except OSError:
        return 0


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    try:
        with closing(Source(path)) as source:
            block = torch.empty(min(source.size, BLOCK), dtype=torch.uint8)
            for start in range(0, source.size, BLOCK):
                part = block[: min(BLOCK, source.size - start)]
                source.fill(part, start)
                total.update(part.numpy().data)
    except RwkvLabError:
        return ""
    return total.hexdigest()
