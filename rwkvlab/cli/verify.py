"""rwkvlab verify: whether a model, and a state on it, do here what they should."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import rwkvlab as lab
from rwkvlab.cli.opening import MODEL_HELP, STATE_HELP, is_bundled, open_model, open_state, path_of
from rwkvlab.cli.texts import as_json, read_texts
from rwkvlab.cli.wording import in_options
from rwkvlab.errors import ArgError

_TEXT = """Compares the model's logits with those of PyPI's rwkv, where that is installed, and tells from texts what a
state does on the model and which way round it is stored. The report can be pasted into an issue. The exit code is 0
where all is well, 1 where something speaks against the files (lines with !), 3 where that stays undecided (lines with ?
alone), and 2 for a mistake that stops it."""
UNDECIDED = 3
MAX_SEEDS = 100


def add_verify(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("verify", parents=[common], help="whether a model and a state work", description=_TEXT)
    one.add_argument("model", help=MODEL_HELP)
    one.add_argument("state", nargs="?", help=STATE_HELP)
    text = "texts like those of the tuning, one a line: plain, or JSON with question (or prompt, read as it stands) and"
    one.add_argument("--texts", metavar="FILE", help=f"{text} answer; or one JSON array")
    one.add_argument(
        "--seeds", type=int, default=6, metavar="N", help="how many random states to compare (%(default)s)"
    )
    one.add_argument("--template", default="auto", help="world, g1, g1-fast, raw; auto: what a state names, else world")
    one.add_argument("--orientation", choices=("VK", "KV"), help="how the state file stores a head")
    one.add_argument("--tokenizer", help="world, bytes or a vocabulary file (chosen by the model's vocabulary size)")
    one.add_argument("--device", default="auto", help="cpu, cuda, … (%(default)s)")
    one.add_argument("--no-official", action="store_true", help="do not run PyPI's rwkv beside ours")
    one.add_argument("--json", action="store_true", help="the report as JSON")
    one.set_defaults(run=verify_command)


def verify_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Print the report; the exit code is 0, 1 where something speaks against the files, 3 where it is undecided."""
    if arguments.texts and not arguments.state:
        raise ArgError("--texts: the texts are read from a state, and none was given; add STATE behind MODEL")
    if not 3 <= arguments.seeds <= MAX_SEEDS:
        raise ArgError(f"--seeds: need 3 to {MAX_SEEDS} random states, got {arguments.seeds}")
    model: Any = arguments.model
    state: Any = arguments.state
    tokenizer = arguments.tokenizer
    if is_bundled(model):
        opened = open_model(arguments)
        state = state and open_state(state, arguments, opened, orientation=arguments.orientation)
        model, tokenizer = path_of(opened), opened.tokenizer
    report = lab.verify(
        model,
        state,
        texts=read_texts(arguments.texts) if arguments.texts else None,
        template=arguments.template,
        orientation=arguments.orientation,
        tokenizer=tokenizer,
        device=arguments.device,
        seeds=range(arguments.seeds),
        official=not arguments.no_official,
    )
    said = (tuple(map(in_options, texts)) for texts in (report.findings, report.problems, report.doubts))
    findings, problems, doubts = said
    shown = replace(report, findings=findings, problems=problems, doubts=doubts)
    print(as_json(shown.to_dict()) if arguments.json else shown)
    return UNDECIDED if report.undecided else int(not report.ok)
