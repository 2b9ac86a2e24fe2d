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
        self.dims = read_header(self.path)[0]
        self.card = ModelCard(self.path.name, self.dims.arch, "")

    def known(self) -> ModelHeader:
        """Return itself, the fingerprint filled in: the weights are read for it, once."""
        if not self.card.fingerprint:
            self.card = ModelCard(self.card.name, self.card.arch, measure_weights(self.path)[1])
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


def read_header(path: Path) -> tuple[Dims, dict[str, tuple[int, ...]]]:
    """Return the geometry of a base model, and the shapes of its weights; the message of an error names the file."""
    with open_container(path) as file:
        return _survey(file)


def base_report(path: Path, blank: FileReport, values: bool) -> FileReport:
    """Return the report on a base model; raises LoadError for anything else."""
    with open_container(path) as file:
        dims, table = _survey(file)
        dtypes = sorted({str(file.info(key)[0]).removeprefix("torch.") for key in table})
        report = blank.sized(dims).replace(kind="base model", dtypes=tuple(dtypes), tensors=len(file.keys()))
    if not values:
        return report
    found, fingerprint = measure_weights(path)
    return report.replace(values=found, fingerprint=fingerprint).judged()


def measure_weights(path: Path) -> tuple[Values, str]:
    """Return what the weights of a base model are like, and its fingerprint; they are read one by one."""
    mark = Fingerprint()
    with open_container(path) as file:
        return values_of_weights(_weights(file, _survey(file)[1], mark)), mark.hex()


def _opened(item: Any) -> Any:
    return ModelHeader(item) if isinstance(item, (str, os.PathLike)) else item


def _survey(file: Container) -> tuple[Dims, dict[str, tuple[int, ...]]]:
    try:
        return survey(file)
    except (SchemaError, MismatchError) as error:
        raise type(error)(f"{file.name}: {error}") from None


def _weights(file: Container, table: dict[str, tuple[int, ...]], mark: Fingerprint) -> Iterator[tuple[str, Tensor]]:
    """Read the weights one by one, and add them to the fingerprint."""
    for key, shape in tqdm(table.items(), delay=2, desc=show(file.name[1:-1], 40), leave=False):
        tensor = file.read(key).reshape(shape)
        mark.add(key, tensor)
        yield key, tensor
