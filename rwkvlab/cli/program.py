"""The command line: demo, ask, tune, inspect, diff, verify, convert, lab, env; errors are a line, Ctrl-C is quiet."""

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
from typing import Any

import torch

import rwkvlab as lab
from rwkvlab.cli.ask import INTERRUPTED, add_ask
from rwkvlab.cli.convert import add_convert
from rwkvlab.cli.diff import add_diff
from rwkvlab.cli.env import add_env
from rwkvlab.cli.inspect import add_inspect
from rwkvlab.cli.lab import add_lab, lab_command
from rwkvlab.cli.tune import add_tune
from rwkvlab.cli.verify import add_verify
from rwkvlab.cli.wording import in_options
from rwkvlab.errors import Cancelled, printable, show


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 2 for a mistake that the message names, 1 for others, 130 for Ctrl-C."""
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
    top = argparse.ArgumentParser("rwkvlab", description="Mount, see, check and compare initial states of RWKV models.")
    top.add_argument("--version", action="version", version=f"rwkvlab {version('rwkvlab')}")
    top.set_defaults(run=help_command, traceback=False)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    one = commands.add_parser("demo", parents=[common], help="the same prompts from different initial states")
    one.add_argument("--out", default="rwkvlab-demo", help="folder for the figure and the answers (%(default)s)")
    one.set_defaults(run=demo_command)

    add_ask(commands, common)
    add_tune(commands, common)
    add_inspect(commands, common)
    add_diff(commands, common)
    add_verify(commands, common)
    add_convert(commands, common)
    add_lab(commands, common)
    add_env(commands, common)
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


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"rwkvlab: note: {in_options(show(message, 400)[1:-1])}", file=sys.stderr)


def _report(error: Exception, trace: bool) -> int:
    """Say an error in one line on stderr; returns the exit code."""
    if trace:
        print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    ours = isinstance(error, lab.RwkvLabError)
    text = in_options(show(error, 1000)[1:-1]) or type(error).__name__
    hint = "" if ours else f" ({type(error).__name__}, not foreseen: run it again with --traceback)"
    print(f"rwkvlab: error: {text}{hint}", file=sys.stderr)
    return 2 if ours else 1


def entry() -> None:
    """Run as a program: after Ctrl-C a further one no longer disturbs the way out."""
    code = main()
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
