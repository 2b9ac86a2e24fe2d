"""rwkvlab convert: a state file of any layout into another."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any

import rwkvlab as lab
from rwkvlab.cli.opening import file_of
from rwkvlab.errors import RwkvLabError, show
from rwkvlab.hub import fetch
from rwkvlab.model.inspect_base import ModelHeader
from rwkvlab.shapes import DTYPES
from rwkvlab.states.card import StateCard
from rwkvlab.states.files import peek_state
from rwkvlab.states.naming import offer
from rwkvlab.states.render import size_text

_TEXT = "The suffix of DST names the layout: .pth (trainers), .state (Ai00, fp16), .safetensors (rwkvlab, whole)."


def add_convert(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("convert", parents=[common], help="a state file into another layout", description=_TEXT)
    one.add_argument("source", metavar="SRC", help="a state file of any layout")
    one.add_argument("target", metavar="DST", help="the file to write, or a folder, which gets a .safetensors")
    one.add_argument("--model", "-m", help="the base model, or a bundled one: for run-time lists and buffers")
    one.add_argument("--orientation", choices=("VK", "KV"), help="how the source stores a head")
    one.add_argument("--format", choices=("rwkv.cpp",), help="the source is rwkv.cpp's buffer, which only you can know")
    one.add_argument("--dtype", choices=tuple(DTYPES), help="of the file to write (the source's)")
    one.add_argument("--drop-shifts", action="store_true", help="lose token-shifts that the layout cannot hold")
    one.add_argument("--overwrite", action="store_true", help="replace DST where it is there")
    one.set_defaults(run=convert_command)


def convert_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Write the state in its new layout; says what was written, and a better name where Ai00 asks for one."""
    names = ("orientation", "dtype", "drop_shifts", "format", "overwrite")
    options = {name: getattr(arguments, name) for name in names}
    model = ModelHeader(file_of(arguments.model)) if arguments.model else None
    source, card = fetch(arguments.source), StateCard()
    with suppress(RwkvLabError):  # what is wrong with the source, convert_state says
        card = peek_state(source, model)[0] if arguments.format is None else card
    if model is not None and card.base:
        model.known()
    path = lab.convert_state(source, arguments.target, model, **options)
    state = lab.load_state(path)
    print(f"{show(path, 300)[1:-1]}: {state!r}, {size_text(path.stat().st_size)}")
    # the file may say less than is known
    arch = card.arch or (model.dims.arch if model is not None else "")
    named = state.replace(card=state.card.replace(name=card.name or state.card.name, arch=arch or state.card.arch))
    if better := offer(named, path):
        print(f"rwkvlab: note: {show(better, 400)[1:-1]}", file=sys.stderr)
    return 0
