"""The command line: rwkvlab demo, ask and lab; an error is one line, Ctrl-C is quiet."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import rwkvlab as lab
from rwkvlab.errors import Cancelled, MismatchError, PathError, printable, show

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for a mistake that the message names, 1 otherwise, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = None
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            arguments, rest = parser().parse_known_args(argv)
            if rest and arguments.run is not lab_command:
                parser().error(f"unknown arguments: {' '.join(map(show, rest))}")
            code = arguments.run(arguments, rest)
            print(end="", flush=True)
            return code
    except (KeyboardInterrupt, Cancelled):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if isinstance(error, lab.RwkvLabError) or error.errno != errno.ENOSPC:
            return _report(error, bool(arguments and arguments.traceback))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("rwkvlab: error: standard output: no space left there; write to another place", file=sys.stderr)
        return 2
    except Exception as error:
        return _report(error, bool(arguments and arguments.traceback))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error came from")
    top = argparse.ArgumentParser("rwkvlab", description="Mount, see and compare initial states of RWKV models.")
    top.add_argument("--version", action="version", version=f"rwkvlab {version('rwkvlab')}")
    top.set_defaults(run=help_command, traceback=False)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    one = commands.add_parser("demo", parents=[common], help="the same prompts from different initial states")
    one.add_argument("--out", default="rwkvlab-demo", help="folder for the figure and the answers (%(default)s)")
    one.set_defaults(run=demo_command)

    one = commands.add_parser("ask", parents=[common], help="ask your own model, from your own states")
    one.add_argument("question", help="one question, in quotes")
    one.add_argument("--model", "-m", required=True, help="a .pth or .safetensors checkpoint, or owner/repo/file")
    one.add_argument("--state", "-s", action="append", default=[], help="a state file; may be given several times")
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
    one.set_defaults(run=ask_command)

    usage = "rwkvlab lab [FOLDER] [OPTIONS OF JUPYTERLAB]"
    text = "FOLDER is what to open: the notebooks of a checkout, or else this folder, unless it is given first."
    one = commands.add_parser("lab", parents=[common], help="open JupyterLab", usage=usage, description=text)
    one.set_defaults(run=lab_command)
    return top


def help_command(*_: Any) -> int:
    """Show the commands."""
    parser().print_help()
    return 0


def demo_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Run the demo on one thread: a model this small loses more by sharing its work than it gains."""
    from rwkvlab.demo import demo

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        demo(arguments.out)
        return 0
    finally:
        torch.set_num_threads(threads)


def ask_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Answer a question from each state in turn, as it is written; everything else is the same for all."""
    model = lab.load_model(
        arguments.model, device=arguments.device, dtype=arguments.dtype, tokenizer=arguments.tokenizer
    )
    options = {"orientation": arguments.orientation, "any_base": arguments.any_base}
    states: list[Any] = []
    for path in arguments.state:
        try:
            states.append(lab.load_state(path, model, **options))
        except MismatchError as error:
            raise MismatchError(f"--state {show(Path(path).name)}: {error}") from error
        for note in states[-1].card.notes:
            print(f"rwkvlab: note: {show(Path(path).name)}: {show(note, 400)[1:-1]}", file=sys.stderr)
    if arguments.zero or not states:
        states.insert(0, None)
    template = arguments.template
    if template == "auto":
        template = next((state.card.template for state in states if state and state.card.template), "world")
    names = ("max_tokens", "temperature", "top_p", "top_k", "presence", "frequency", "seed")
    sampling = {name: getattr(arguments, name) for name in names}
    for state in states:
        if len(states) > 1:
            print(f"--- {printable('zero' if state is None else state.card.name or 'state')}", flush=True)
        answer = model.chat(arguments.question, state, template=template, on_text=_write, **sampling)
        print(flush=True)
        if answer.finish == "interrupted":
            return INTERRUPTED
    print(f"template {template}, " + ", ".join(f"{name} {value}" for name, value in sampling.items()), file=sys.stderr)
    return 0


def lab_command(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Become JupyterLab, in the notebooks of a checkout where there are some."""
    notebooks = Path(__file__).resolve().parents[1] / "notebooks"
    given = rest.pop(0) if rest and not rest[0].startswith("-") else None
    folder = Path(given or (notebooks if notebooks.is_dir() else "."))
    if not folder.exists():
        raise PathError(f"{show(folder)}: no such folder or notebook; give one that exists")
    # JupyterLab refuses to start as root, as which containers run
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    print(end="", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(folder), *root, *rest])


def _write(text: str) -> None:
    print(printable(text), end="", flush=True)


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"rwkvlab: note: {show(message, 400)[1:-1]}", file=sys.stderr)


def _report(error: Exception, trace: bool) -> int:
    """Say an error in one line on stderr; returns the exit code."""
    if trace:
        traceback.print_exception(error)
    ours = isinstance(error, lab.RwkvLabError)
    text = show(error, 1000)[1:-1] or type(error).__name__
    hint = "" if ours else f" ({type(error).__name__}, not foreseen: run it again with --traceback)"
    print(f"rwkvlab: error: {text}{hint}", file=sys.stderr)
    return 2 if ours else 1


def entry() -> None:
    """Run as a program: after Ctrl-C a further one no longer disturbs the way out."""
    code = main()
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    entry()
