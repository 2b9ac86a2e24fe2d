"""rwkvlab ask: one question to a model, answered from each of several states."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rwkvlab.cli.opening import MODEL_HELP, STATE_HELP, is_bundled, open_model, open_state
from rwkvlab.errors import ArgError, MismatchError, PathError, printable, show
from rwkvlab.measure.arms import name_arms
from rwkvlab.measure.comparing.compare import assemble
from rwkvlab.tasks.templates import get_template

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def add_ask(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("ask", parents=[common], help="ask your own model, from your own states")
    one.add_argument("question", help="one question, in quotes")
    one.add_argument("--model", "-m", required=True, help=MODEL_HELP)
    one.add_argument("--state", "-s", action="append", default=[], help=f"{STATE_HELP}; may be given several times")
    one.add_argument("--zero", action="store_true", help="answer from the zero state too, first")
    one.add_argument("--orientation", choices=("VK", "KV"), help="how state files store a head (seen from the file)")
    one.add_argument("--any-base", action="store_true", help="take states that were made on another base model")
    one.add_argument("--template", default="auto", help="world, g1, g1-fast, raw; auto: what a state names, else world")
    one.add_argument("--tokenizer", help="world, bytes or a vocabulary file (chosen by the model's vocabulary size)")
    one.add_argument("--device", default="auto", help="cpu, cuda, … (%(default)s)")
    one.add_argument("--dtype", default="auto", help="fp32, bf16 or fp16 (%(default)s: the file's)")
    one.add_argument("--max-tokens", type=int, default=200, help="length of the answer (%(default)s)")
    one.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (%(default)s)")
    one.add_argument("--top-p", type=float, default=0.2, help="(%(default)s)")
    one.add_argument("--top-k", type=int, default=0, help="(%(default)s: off)")
    one.add_argument("--presence", type=float, default=0.3, help="presence penalty (%(default)s)")
    one.add_argument("--frequency", type=float, default=0.3, help="frequency penalty (%(default)s)")
    one.add_argument("--seed", type=int, default=0, help="the same for every state (%(default)s)")
    one.add_argument("--html", metavar="FILE.html", help="also write a page with the answers side by side (replaced)")
    one.set_defaults(run=ask_command)


def ask_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Answer a question from each state in turn, as it is written; everything else is the same for all."""
    page = _page(arguments.html)
    model = open_model(arguments)
    options = {"orientation": arguments.orientation, "any_base": arguments.any_base}
    states: list[Any] = []
    for path in arguments.state:
        try:
            states.append(open_state(path, arguments, model, **options))
        except MismatchError as error:
            raise MismatchError(f"--state {show(Path(path).name)}: {error}") from error
        for note in states[-1].card.notes:
            print(f"rwkvlab: note: {show(Path(path).name)}: {show(note, 400)[1:-1]}", file=sys.stderr)
    if arguments.zero or not states:
        states.insert(0, None)
    template = arguments.template
    if template == "auto":
        plain = arguments.model == "micro" and is_bundled(arguments.model)  # which knows no turns
        named = (state.card.template for state in states if state and state.card.template)
        template = next(named, "raw" if plain else "world")
    names = ("max_tokens", "temperature", "top_p", "top_k", "presence", "frequency", "seed")
    sampling = {name: getattr(arguments, name) for name in names}
    answers = []
    for state in states:
        if len(states) > 1:
            print(f"--- {'zero' if state is None else show(state.card.name or 'state')[1:-1]}", flush=True)
        answer = model.chat(arguments.question, state, template=template, on_text=_write, **sampling)
        print(flush=True)
        if answer.finish == "interrupted":
            return INTERRUPTED
        answers.append(answer)
    print(f"template {template}, " + ", ".join(f"{name} {value}" for name, value in sampling.items()), file=sys.stderr)
    if page is not None:
        arms = name_arms(states, zero_first=False)
        done = ((arguments.question, name, 0, answer) for name, answer in zip(arms, answers, strict=True))
        page = assemble(model, get_template(template), arms, done, {"seed": arguments.seed, **sampling}).to_html(page)
        print(f"{show(page, 300)[1:-1]}: written", file=sys.stderr)
    return 0


def _page(given: str | None) -> Path | None:
    """Return where the page goes; refuses it before anything is asked."""
    if given is None:
        return None
    path = Path(given)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ArgError(f"--html: need a name ending in .html, got {show(path.name)}")
    if not path.absolute().parent.is_dir():
        raise PathError(f"--html: no such folder {show(path.absolute().parent, 300)}; make it first")
    return path


def _write(text: str) -> None:
    print(printable(text), end="", flush=True)
