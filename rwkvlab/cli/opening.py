"""The models and states that a command is told of: files, or those that come with the package."""

from __future__ import annotations

import argparse
import os
from typing import Any

import rwkvlab as lab
from rwkvlab.errors import ArgError, PathError, show

BUNDLED = ("micro", "rwkv7", "rwkv6")
MODEL_HELP = f"a .pth or .safetensors checkpoint, owner/repo/file, or a bundled one: {', '.join(BUNDLED)}"
_DEFAULTS = {"device": "auto", "dtype": "auto", "tokenizer": None}


def is_bundled(given: str | None) -> bool:
    """Whether a model that comes with the package is meant: nothing else here has its name."""
    return given in BUNDLED and not os.path.lexists(given)


def open_model(arguments: argparse.Namespace) -> lab.Model:
    """Load the model that a command names. Raises as `load_model` does, ArgError for options of a bundled one."""
    options = {name: getattr(arguments, name) for name in _DEFAULTS if hasattr(arguments, name)}
    if not is_bundled(arguments.model):
        return lab.load_model(arguments.model, **options)
    if given := [f"--{name}" for name, value in options.items() if value != _DEFAULTS[name]]:
        raise ArgError(f"{given[0]}: {arguments.model} comes with the package, its vocabulary too; leave it out")
    return lab.bundled(arguments.model)[0]


def open_state(given: str, arguments: argparse.Namespace, model: lab.Model, **options: Any) -> lab.State:
    """Load a state; one of a bundled model also by words of its name, where no file has that name.

    Raises as `load_state` does.
    """
    if not is_bundled(arguments.model) or os.path.lexists(given):
        return lab.load_state(given, model, **options)
    shelf = lab.bundled(arguments.model)[1]
    found = shelf.find(given)
    if len(found) != 1:
        which = (
            f"{len(found)} states of {arguments.model} bear that name" if found else "no such file, and no such state"
        )
        raise PathError(f"{show(given)}: {which}; {arguments.model} has {', '.join(found or shelf)}")
    return lab.load_state(shelf.path(found[0]), model, **options)
