"""`bundled`: the models that come with the package, each with its tokenizer and its shelf of tuned states."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rwkvlab.errors import ArgError, show
from rwkvlab.model.engine import Model, load_model
from rwkvlab.shapes import check_range
from rwkvlab.states.shelf import Shelf

NAMES = ("micro",)  # the first is the default
SEEDS = (0, 1, 2)


def bundled(name: str | None = None, seed: int = 0) -> tuple[Model, Shelf]:
    """Load a model that comes with the package, and the shelf of the states that were tuned on it.

    "micro" (also None) is an RWKV-7 of 0.15 M parameters, with a state for each of six functions of a short string:
    see `rwkvlab.tasks.builtin`. The same six were tuned three times, on other examples in another order: seed is 0, 1
    or 2, and the names are the same. Raises ArgError for another name or seed.
    """
    chosen = NAMES[0] if name is None else name
    if chosen not in NAMES:
        raise ArgError(f"bundled: need one of {', '.join(NAMES)}, got {show(name)}")
    which = int(check_range("bundled: seed", seed, SEEDS[0], SEEDS[-1], whole=True))
    folder = Path(str(files("rwkvlab.bundled"))) / chosen
    model = load_model(folder / f"{chosen}.pth", tokenizer=folder / "vocab.txt")
    return model, Shelf(states_folder(folder, which), model)


def states_folder(folder: Path, seed: int) -> Path:
    """Return where the states of a seed lie in the folder of a bundled model."""
    return folder / "seeds" / str(seed) if seed else folder / "states"
