"""rwkvlab lab: JupyterLab on copies of the notebooks, which are yours to change and are never overwritten."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rwkvlab.errors import ArgError, PathError, RwkvLabError, show
from rwkvlab.tensorfile.atomic import atomic_write

_USAGE = "rwkvlab lab [FOLDER | [--to DIR] [--fresh]] [OPTIONS OF JUPYTERLAB]"
_TEXT = """Open JupyterLab on copies of rwkvlab's notebooks. A notebook that is in DIR already stays as it is. FOLDER,
which comes first where it is given, is opened instead, and nothing is copied. All other options go to JupyterLab."""


def add_lab(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser(
        "lab", parents=[common], help="open JupyterLab", usage=_USAGE, description=_TEXT, allow_abbrev=False
    )
    one.add_argument("--to", metavar="DIR", help="where the copies are (rwkvlab-notebooks in the current folder)")
    one.add_argument("--fresh", action="store_true", help="new copies, in a new folder: DIR-2, DIR-3, …")
    one.set_defaults(run=lab_command)


def lab_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Become JupyterLab, in the copies of the notebooks or in the folder that was given."""
    if rest and not rest[0].startswith("-"):
        if arguments.to is not None or arguments.fresh:
            raise ArgError(f"{show(rest[0], 300)}: a folder to open as it is cannot go with --to or --fresh; give one")
        folder = Path(rest.pop(0))
        if not folder.exists():
            raise PathError(f"{show(folder, 300)}: no such folder or notebook; give one that exists")
    else:
        folder = Path("rwkvlab-notebooks" if arguments.to is None else arguments.to)
        folder, said = copy_notebooks(folder, fresh=arguments.fresh)
        print(said)
    # JupyterLab refuses to start as root, as which containers run
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # a default of ours, which the user's own settings outdo: JupyterLab does not begin by asking about its news
    paths = [os.environ.get("JUPYTER_CONFIG_PATH"), str(Path(__file__).with_name("jupyter"))]
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}
    print(end="", flush=True)
    command = [sys.executable, "-m", "jupyterlab", os.path.abspath(folder), *root, *rest]
    os.execve(sys.executable, command, environment)


def copy_notebooks(folder: Path, *, fresh: bool = False) -> tuple[Path, str]:
    """Copy the notebooks that are not in `folder` yet; returns the folder, and one line that says what was done.

    fresh=True takes a new folder: `folder` itself, or else the first free of FOLDER-2, FOLDER-3, …
    Raises PathError where the folder cannot be made or written, and where rwkvlab's notebooks are not installed.
    """
    notebooks = {path.name: path.read_bytes() for path in shipped_notebooks()}
    try:
        number = 1
        while fresh and os.path.lexists(_numbered(folder, number)):
            number += 1
        folder = _numbered(folder, number)
        folder.mkdir(parents=True, exist_ok=not fresh)
        there = {name for name in notebooks if os.path.lexists(folder / name)}
        for name in notebooks.keys() - there:
            _put(folder / name, notebooks[name])
    except (OSError, ValueError) as error:
        why = str(error) if isinstance(error, RwkvLabError) else getattr(error, "strerror", None) or "not a path"
        raise PathError(f"{show(folder, 300)}: no place for notebooks ({why}); name another with --to DIR") from error
    other = sum(_sources(_bytes(folder / name)) != _sources(notebooks[name]) for name in there)
    copied = len(notebooks) - len(there)
    said = f"{show(folder, 300)[1:-1]}: {_count(copied) + ' copied' if copied else 'nothing to copy'}"
    if other:
        said += f", {_count(other)} unlike this version's left as they are (--fresh: new copies in another folder)"
    return folder, said


def shipped_notebooks() -> list[Path]:
    """The notebooks of an installed package, or else those of the checkout that it runs from."""
    places = Path(__file__).resolve().parents[1] / "notebooks", Path(__file__).resolve().parents[2] / "notebooks"
    for place in places:
        if found := sorted(place.glob("*.ipynb")):
            return found
    where = " or ".join(show(place, 300) for place in places)
    raise PathError(f"no notebooks in {where}: install rwkvlab again, or give a FOLDER to open")


def _put(path: Path, content: bytes) -> None:
    atomic_write(path, lambda file: file.write(content), overwrite=False)


def _numbered(folder: Path, number: int) -> Path:
    return folder if number == 1 else Path(f"{os.path.abspath(folder)}-{number}")


def _count(number: int) -> str:
    return f"{number} notebook" + "s" * (number != 1)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _sources(notebook: bytes) -> Any:
    """What a notebook says, without outputs and prompt numbers: running a notebook does not make it another."""
    try:
        return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
