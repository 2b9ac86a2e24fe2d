"""The models and states that a command is told of: files, or those that come with the package."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import rwkvlab as lab
from rwkvlab.errors import ArgError, PathError, show
from rwkvlab.states.names import parse_name

BUNDLED = ("micro", "rwkv7", "rwkv6")
MODEL_HELP = f"a .pth or .safetensors checkpoint, a folder, owner/repo/file, or a bundled one: {', '.join(BUNDLED)}"
STATE_HELP = "a state file, or words of the name of a bundled model's state, such as emoji"


def is_bundled(given: str | None) -> bool:
    """Whether a model that comes with the package is meant: nothing else here has its name."""
    return given in BUNDLED and not os.path.lexists(given)


def open_model(arguments: argparse.Namespace) -> lab.Model:
    """Load the model that a command names. Raises as `load_model` does, ArgError for a bundled one's tokenizer."""
    options = {name: getattr(arguments, name) for name in ("device", "dtype", "tokenizer") if hasattr(arguments, name)}
    given = arguments.model
    if not is_bundled(given):
        try:
            return lab.load_model(given, **options)
        except PathError as error:
            if os.path.lexists(given) or not given.isalnum():
                raise
            raise PathError(f"{error}, or one of {', '.join(BUNDLED)}") from error
    if options.pop("tokenizer") is not None:
        raise ArgError(f"--tokenizer: {given} comes with its own; leave it out")
    model = lab.bundled(given)[0]
    if all(value == "auto" for value in options.values()):
        return model
    if options["device"] == "cpu" and options.get("dtype") == "auto":
        options["dtype"] = "fp32"  # as `bundled` has it
    return lab.load_model(path_of(model), tokenizer=model.tokenizer, **options)


def file_of(given: str) -> str:
    """Return what is to be opened for a model of which the file is looked into."""
    return path_of(lab.bundled(given)[0]) if is_bundled(given) else given


def path_of(model: lab.Model) -> str:
    """Return the file of a bundled model."""
    assert model.recipe is not None  # it was loaded from a file
    return str(model.recipe.path)


def open_state(given: str, arguments: argparse.Namespace, model: lab.Model, **options: Any) -> lab.State:
    """Load a state; one of a bundled model also by words of its name, where no file has that name.

    Raises as `load_state` does.
    """
    if not is_bundled(arguments.model) or os.path.lexists(given):
        return lab.load_state(given, model, **options)
    shelf = lab.Shelf(Path(path_of(model)).parent / "states")
    found = shelf.find(given) if given.strip() else []
    if len(found) == 1:
        return lab.load_state(shelf.path(found[0]), model, **options)
    short = ", ".join(parse_name(name).purpose or name for name in found or shelf)
    what = f"fits {len(found)} states of {arguments.model}" if found else "no such file, and no such state"
    raise PathError(f"{show(given)}: {what}; {'choose from' if found else f'{arguments.model} has'} {short}")
