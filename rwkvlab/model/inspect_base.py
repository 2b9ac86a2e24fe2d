"""What inspect_file says of a base model; and ModelHeader, a model of which nothing but the header was read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import MismatchError, SchemaError, show
from rwkvlab.hub import fetch
from rwkvlab.model.containers import Container, open_container
from rwkvlab.model.file_report import FileReport
from rwkvlab.model.file_values import Values, values_of_weights
from rwkvlab.model.fingerprint import Fingerprint
from rwkvlab.model.weights import survey
from rwkvlab.shapes import Dims
from rwkvlab.states.card import ModelCard
from rwkvlab.states.fits import HasDims, check_model


class ModelHeader:
    """A base model of which only the header was read: its geometry and name, the fingerprint when `known` asks."""

    def __init__(self, source: str | os.PathLike[str]) -> None:
        """Read the header; raises what `load_model` raises for a file that it does not take."""
        self.path = fetch(source)
        with open_container(self.path) as file:
            self.dims = read_header(file)[0]
        self.card = ModelCard(self.path.name, self.dims.arch, "")

    def known(self) -> ModelHeader:
        """Return itself, the fingerprint filled in: the weights are read for it, once."""
        if not self.card.fingerprint:
            with open_container(self.path) as file:
                fingerprint = measure_weights(file, read_header(file)[1])[1]
            self.card = ModelCard(self.card.name, self.card.arch, fingerprint)
        return self


def known_models(models: Any) -> dict[str, HasDims]:
    """Return models by names that differ: given as one or several Models or paths (of a path the header is read).

    A mapping of names to these stays as it is. Raises ArgError, and for a path what `load_model` raises.
    """
    if isinstance(models, Mapping):
        return {str(name): check_model(f"models[{show(name)}]", _opened(item)) for name, item in models.items()}
    single = isinstance(models, (str, os.PathLike)) or hasattr(models, "dims") or not isinstance(models, Iterable)
    known: dict[str, HasDims] = {}
    for index, item in enumerate([models] if single else list(models)):
        model = check_model(f"models[{index}]", _opened(item))
        name = model.card.name or f"model {index}"
        if name in known and isinstance(model, ModelHeader):
            name = f"{model.path.absolute().parent.name}/{name}"
        while name in known:
            name += "'"
        known[name] = model
    return known


def read_header(file: Container) -> tuple[Dims, dict[str, tuple[int, ...]]]:
    """Return the geometry of an open base model, and the shapes of its weights; an error's message names the file."""
    try:
        return survey(file)
    except (SchemaError, MismatchError) as error:
        raise type(error)(f"{file.name}: {error}") from None


def base_report(path: Path, blank: FileReport, values: bool) -> FileReport:
    """Return the report on a base model; raises LoadError for anything else."""
    with open_container(path) as file:
        dims, table = read_header(file)
        dtypes = sorted({str(file.info(key)[0]).removeprefix("torch.") for key in table})
        report = blank.sized(dims).replace(kind="base model", dtypes=tuple(dtypes), tensors=len(file.keys()))
        if not values:
            return report
        found, fingerprint = measure_weights(file, table)
    return report.replace(values=found, fingerprint=fingerprint).judged()


def measure_weights(file: Container, table: Mapping[str, tuple[int, ...]]) -> tuple[Values, str]:
    """Return what the weights of an open base model are like, and its fingerprint; they are read one by one."""
    mark = Fingerprint()
    return values_of_weights(_weights(file, table, mark)), mark.hex()


def _opened(item: Any) -> Any:
    return ModelHeader(item) if isinstance(item, (str, os.PathLike)) else item


def _weights(file: Container, table: Mapping[str, tuple[int, ...]], mark: Fingerprint) -> Iterator[tuple[str, Tensor]]:
    """Read the weights one by one, and add them to the fingerprint."""
    for key, shape in tqdm(table.items(), delay=2, desc=show(file.name[1:-1], 40), leave=False):
        tensor = file.read(key).reshape(shape)
        mark.add(key, tensor)
        yield key, tensor
