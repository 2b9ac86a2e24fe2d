"""The checkpoint of a run of tuning: a file of plain tensors from which a run that was killed goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rwkvlab.errors import LoadError, ResumeError, show
from rwkvlab.model.examples import Encoded
from rwkvlab.states.state import State
from rwkvlab.tensorfile import read_tensors, tensor_digest, write_safetensors
from rwkvlab.tensorfile.safetensors import strict_json
from rwkvlab.tensorfile.source import as_path

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

MARK = "tuning"
FORMAT = 1
SECONDS = 30.0  # between two checkpoints, where no number of steps is given
OTHER = "it is left as it is: give another path as checkpoint=, or delete it to start anew"


class Saving:
    """A run's checkpoint file: `load` what is there, `write` it whole or not at all.

    run: what the run is (`identity`), place: where it runs; both are written into it and compared.
    """

    def __init__(self, path: str | os.PathLike[str], run: dict[str, Any], place: dict[str, Any], every: int | None):
        self.path, self.run, self.place, self.every = as_path(path), run, place, every
        self.name = f"checkpoint {show(self.path.name)}"
        self.written = -math.inf
        self.last: tuple[float, ...] = (-1.0, -1.0)

    def load(self, want: Mapping[str, Tensor], steps: int) -> dict[str, Tensor] | None:
        """Return the tensors of the file, as `want` has them by name and shape; None where there is no file.

        Raises ResumeError where it is of another run (with all differences), damaged, or no checkpoint; PathError.
        Another place only brings a warning.
        """
        if not os.path.lexists(self.path):
            return None
        try:
            with read_tensors(self.path) as file:
                self._check_header(file.metadata)
                there = {key: file.info(key) for key in file}
                if there != {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in want.items()}:
                    raise ResumeError(f"{self.name}: holds other tensors than this run's; {OTHER}")
                found = {key: file.read(key) for key in want}
                seal = file.metadata["sha256"]
        except LoadError as error:
            raise ResumeError(f"{self.name}: cannot be read: {error}; {OTHER}") from error
        if seal != _seal(found, file.metadata["run"]) or not _plausible(found, steps):
            raise ResumeError(f"{self.name}: is damaged: its bytes are not those that were written; {OTHER}")
        self.written, self.last = time.monotonic(), _at(found)
        return found

    def _check_header(self, metadata: Mapping[str, str]) -> None:
        """Raise ResumeError unless this is a checkpoint of the same run; warn of another place."""
        if not {"rwkvlab", "run", "sha256"} <= set(metadata) or metadata["rwkvlab"] != f"{MARK} {FORMAT}":
            raise ResumeError(f"{self.name}: is no checkpoint of a tuning run; {OTHER}")
        there = strict_json(f"{self.name}: run", metadata["run"].encode())
        place = there.pop("place", None)
        if found := _differences(there, self.run):
            raise ResumeError(f"{self.name}: is of another run ({'; '.join(found)}); {OTHER}")
        if found := _differences(place if isinstance(place, dict) else {}, self.place):
            text = f"{self.name}: goes on where not all is as before ({'; '.join(found)}): the last bits may come out"
            warnings.warn(f"{text} other than in an unbroken run", stacklevel=2)

    def due(self, step: int) -> bool:
        """Whether it is time to write."""
        if self.every is not None:
            return step % self.every == 0
        return time.monotonic() - self.written >= SECONDS

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Put a run's tensors in the place of what is there, unless they are there; SaveError, PathError."""
        at = _at(tensors)
        if at == self.last:
            return
        text = json.dumps(self.run | {"place": self.place})
        metadata = {"rwkvlab": f"{MARK} {FORMAT}", "run": text, "sha256": _seal(tensors, text)}
        write_safetensors(self.path, tensors, metadata)
        self.written, self.last = time.monotonic(), at


def identity(
    model: Model, rows: Sequence[Encoded], apart: Sequence[Encoded], states: Mapping[str, State | None], **settings: Any
) -> dict[str, Any]:
    """Return what a run is, ready for JSON: settings, and model, examples and states by digest."""
    found = {
        "model": model.card.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "examples": _digest_rows(rows),
        "held_out": _digest_rows(apart) if apart else "none",
    }
    return found | {name: _digest_state(state) for name, state in states.items()} | settings


def place(model: Model, processes: int, checkpointing: bool) -> dict[str, Any]:
    """Return what else the last bits of a result depend on."""
    return {
        "torch": str(torch.__version__),
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "checkpointing": checkpointing,
    }


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    names = [*here, *sorted(set(there) - set(here))]
    pairs = [(show(name, 20)[1:-1], there.get(name), here.get(name)) for name in names]
    return [f"{name}: {show(old, 20)} there, {show(new, 20)} here" for name, old, new in pairs if old != new]


def _at(tensors: Mapping[str, Tensor]) -> tuple[float, ...]:
    """How far a run is: its steps, and when it was last measured."""
    return tuple(tensors["progress"][:2].tolist())


def _plausible(tensors: Mapping[str, Tensor], steps: int) -> bool:
    done, measured, at, worse, lowest = tensors["progress"].tolist()
    whole = all(math.isfinite(x) and x == int(x) for x in (done, measured, at, worse))
    order = whole and 0 <= done <= steps and -1 <= measured <= done and 0 <= at <= done and 0 <= worse <= steps + 1
    finite = all(bool(tensor.isfinite().all()) for key, tensor in tensors.items() if key != "progress")
    return order and finite and not math.isnan(lowest)


def _seal(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.sha256((tensor_digest(tensors) + text).encode()).hexdigest()


def _digest_rows(rows: Sequence[Encoded]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(len(row.ids).to_bytes(8, "little"))
        total.update(np.array(row.ids, "<i8").tobytes() + bytes(row.wanted))
    return total.hexdigest()


def _digest_state(state: State | None) -> str:
    if state is None:
        return "none"
    return tensor_digest({"wkv": state.wkv, "att_shift": state.att_shift, "ffn_shift": state.ffn_shift})
