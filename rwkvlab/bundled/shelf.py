"""`bundled`: the models that come with the package, each with its tokenizer and its shelf of tuned states."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from rwkvlab.errors import ArgError, PathError, show
from rwkvlab.model.engine import Model, load_model
from rwkvlab.shapes import check_range
from rwkvlab.states.shelf import Shelf

WORLDS = ("rwkv7", "rwkv6")
NAMES = ("micro", *WORLDS)  # the first is the default
SEEDS = (0, 1, 2)


def bundled(name: str | None = None, seed: int = 0) -> tuple[Model, Shelf]:
    """Load a model that comes with the package, and the shelf of the states that were tuned on it.

    "micro" (also None) is an RWKV-7 of 0.15 M parameters, with a state for each of six functions of a short string:
    see `rwkvlab.tasks.builtin`. The same six were tuned three times, on other examples in another order: seed is 0, 1
    or 2, and the names are the same. "rwkv7" and "rwkv6" have 5 and 6 M parameters and know these functions, questions
    about two of 48 cities answered in six styles, Tang poems, Song ci, Shakespeare and Austen, and nothing else: find a
    state by what it is for, as in `shelf[shelf.find("emoji")[0]]`. They are fp32 on a CPU, bf16 on a GPU. Raises
    ArgError for another name or seed, PathError where the installation lacks the model's files.
    """
    chosen = NAMES[0] if name is None else name
    if chosen not in NAMES:
        raise ArgError(f"bundled: need one of {', '.join(NAMES)}, got {show(name)}")
    which = int(check_range("bundled: seed", seed, SEEDS[0], SEEDS[-1], whole=True))
    if which and chosen in WORLDS:
        raise ArgError(f"bundled: seed: the states of {show(chosen)} come with seed 0 alone, got {which}; leave it out")
    folder = bundled_folder(chosen)
    if chosen in WORLDS:
        model = open_world(folder)
    else:
        model = load_model(folder / f"{chosen}.pth", tokenizer=folder / "vocab.txt")
    return model, Shelf(states_folder(folder, which), model)


def bundled_folder(name: str) -> Path:
    """Return where a bundled model lies; PathError, which names them, where files of it are missing."""
    folder = Path(str(files("rwkvlab.bundled"))) / name
    if missing := [part for part in (f"{name}.pth", "vocab.txt", "states") if not (folder / part).exists()]:
        raise PathError(
            f"bundled: {show(name)}: {', '.join(missing)}: missing from this installation; install rwkvlab again, or "
            "make them with rwkvlab.bundled.pretrain and rwkvlab.bundled.world_recipe"
        )
    return folder


def open_world(folder: Path, device: str = "auto") -> Model:
    """Open the world model in a folder that holds NAME.pth and vocab.txt; fp32 on a CPU, which is slow at less.

    Raises PathError where there is none.
    """
    name = next((name for name in WORLDS if (folder / f"{name}.pth").is_file()), None)
    if name is None:
        raise PathError(f"{show(folder)}: need a folder with {' or '.join(f'{name}.pth' for name in WORLDS)}, got none")
    on_gpu = torch.cuda.is_available() if device == "auto" else torch.device(device).type == "cuda"
    vocab = folder / "vocab.txt"
    return load_model(folder / f"{name}.pth", device=device, dtype="auto" if on_gpu else "fp32", tokenizer=vocab)


def states_folder(folder: Path, seed: int) -> Path:
    """Return where the states of a seed lie in the folder of a bundled model."""
    return folder / "seeds" / str(seed) if seed else folder / "states"
