"""rwkvlab diff: what two states are, and what they differ in, on one page."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from rwkvlab.cli.opening import open_model
from rwkvlab.cli.texts import as_json, read_texts
from rwkvlab.cli.wording import in_options
from rwkvlab.errors import ArgError
from rwkvlab.measure.diff import diff

_TEXT = """Tells what two states are, whether one is a copy, a multiple, a transpose or a splice of the other, and which
heads differ most. With a model the states are also compared as it reads them, along some texts."""


def add_diff(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("diff", parents=[common], help="what two states differ in", description=_TEXT)
    one.add_argument("a", metavar="A", help="a state file, or owner/repo/file")
    one.add_argument("b", metavar="B", help="another one")
    one.add_argument("--model", "-m", help="the base model of both, to compare what it reads out of them")
    text = "texts that the model reads, one a line: plain, or JSON with question and answer (some of our own)"
    one.add_argument("--texts", metavar="FILE", help=text)
    one.add_argument("--tokenizer", help="world, bytes or a vocabulary file (chosen by the model's vocabulary size)")
    one.add_argument("--device", default="auto", help="cpu, cuda, … (%(default)s)")
    one.add_argument("--json", action="store_true", help="everything that was measured, of every layer and head")
    one.set_defaults(run=diff_command)


def diff_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Print the summary; the exit code is 0 also where the states differ."""
    if arguments.texts and not arguments.model:
        raise ArgError("--texts: they are read by a model, and none was given; add --model")
    model, texts = None, None
    if arguments.model:
        texts = read_texts(arguments.texts) if arguments.texts else None
        model = open_model(arguments)
    found = diff(arguments.a, arguments.b, model, texts)
    found = replace(found, findings=tuple(map(in_options, found.findings)))
    print(as_json(found.to_dict()) if arguments.json else found)
    return 0
