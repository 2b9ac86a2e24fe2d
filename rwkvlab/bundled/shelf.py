"""`bundled`: the models that come with the package, each with its tokenizer and its shelf of tuned states."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rwkvlab.errors import ArgError, show
from rwkvlab.model.engine import Model, load_model
from rwkvlab.states.shelf import Shelf

NAMES = ("micro",)  # the first is the default


def bundled(name: str | None = None) -> tuple[Model, Shelf]:
    """Load a model that comes with the package, and the shelf of the states that were tuned on it.

    "micro" (also None) is an RWKV-7 of 0.15 M parameters, with a state for each of six functions of a short string:
    see `rwkvlab.tasks.builtin`. Raises ArgError for another name.
    """
    chosen = NAMES[0] if name is None else name
    if chosen not in NAMES:
        raise ArgError(f"bundled: need one of {', '.join(NAMES)}, got {show(name)}")
    folder = Path(str(files("rwkvlab.bundled"))) / chosen
    model = load_model(folder / f"{chosen}.pth", tokenizer=folder / "vocab.txt")
    return model, Shelf(folder / "states", model)
