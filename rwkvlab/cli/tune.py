"""rwkvlab tune: train an initial state on a file of examples, the model left as it is."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import distributed

import rwkvlab as lab
from rwkvlab.cli.ask import INTERRUPTED
from rwkvlab.cli.opening import MODEL_HELP, open_model, open_state
from rwkvlab.errors import ArgError, PathError, RwkvLabError, SaveError, TuneError, show
from rwkvlab.model.example_files import located_examples, utf8_file
from rwkvlab.model.interrupt import held_interrupt
from rwkvlab.model.tuning import TuneStep
from rwkvlab.states.files import SUFFIXES

_TEXT = """DATA is JSONL, an object a line: {"prompt": …, "answer": …}, {"text": …} or {"messages": [{"role": "user",
"content": …}, {"role": "assistant", …}]}, in short {"question": …, "answer": …}; with --teacher also {"prompt": …},
which the teacher answers. Messages are written in a template; pairs and texts are read as they stand. Ctrl-C ends the
run after a step and saves the best state so far. On several GPUs, torchrun --nproc-per-node N --no-python rwkvlab
tune … comes to the same state: --batch is that of all together."""
_SETTINGS = (
    *("steps", "lr", "batch", "seed", "shifts", "template", "check", "patience", "checkpoint", "every"),
    *("teacher_weight", "checkpointing"),
)
_LONGEST = 16 << 20  # bytes of a teacher's prompt


def add_tune(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("tune", parents=[common], help="train a state on your examples", description=_TEXT)
    one.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    one.add_argument("data", metavar="DATA.jsonl", help="the examples")
    one.add_argument("--out", "-o", required=True, help="the state: .pth (trainers), .state (Ai00) or .safetensors")
    one.add_argument("--overwrite", action="store_true", help="replace the state where it is there")
    one.add_argument("--steps", type=int, default=200, help="(%(default)s)")
    one.add_argument("--lr", type=float, default=0.04, help="falls to 0 along a cosine (%(default)s)")
    one.add_argument("--batch", type=int, help="examples a step (16, or all if there are fewer)")
    one.add_argument("--held-out", type=float, default=0.1, help="share that is not trained on; 0: none (%(default)s)")
    one.add_argument("--check", type=int, help="steps from one measurement of these to the next (a twentieth of all)")
    one.add_argument("--patience", type=int, help="end after so many measurements without a better one (never)")
    one.add_argument("--init", metavar="STATE", help="a state to start from, or words of a bundled one's name (zeros)")
    one.add_argument("--shifts", action="store_true", help="train the token shifts too; only .safetensors holds them")
    one.add_argument("--teacher", metavar="TEXT", help="a prompt whose effect becomes the state; @FILE reads it there")
    one.add_argument("--teacher-weight", type=float, default=1.0, help="its share, beside the answers' (%(default)s)")
    one.add_argument("--checkpoint", metavar="FILE", help="kept on the way; killed, the same command goes on from it")
    one.add_argument("--every", type=int, help="steps from one checkpoint to the next (half a minute)")
    one.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="less memory, more time (on a GPU)")
    one.add_argument("--template", help="for messages: world, g1, g1-fast, raw (world; of pairs and texts: raw)")
    one.add_argument("--tokenizer", help="world, bytes or a vocabulary file (chosen by the model's vocabulary size)")
    one.add_argument("--device", default="auto", help="cpu, cuda, … (%(default)s)")
    one.add_argument("--dtype", default="auto", help="fp32, bf16 or fp16 (%(default)s: the file's)")
    one.add_argument("--seed", type=int, default=0, help="of what is held out and of the order (%(default)s)")
    one.set_defaults(run=tune_command)


def tune_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Tune and save; what is wrong with the place to save to is said before anything is trained."""
    with _ranks(arguments) as first:
        out = _place(arguments) if first else Path(arguments.out)
        examples, places = located_examples(arguments.data)
        talks = any(isinstance(one, dict) and ("messages" in one or "question" in one) for one in examples)
        note = not (talks or arguments.template)
        arguments.template = arguments.template or ("world" if talks else "raw")
        fresh = not (arguments.checkpoint and os.path.lexists(arguments.checkpoint))
        model = open_model(arguments)
        init = open_state(arguments.init, arguments, model) if arguments.init else None
        options = {name: getattr(arguments, name) for name in _SETTINGS} | {"teacher": _teacher(arguments.teacher)}
        shown = last = 0

        def show_step(step: TuneStep) -> None:
            nonlocal shown, last
            last = step.step
            if step.held_out is not None or not shown or step.step == step.steps:
                shown += 1
                print(_line(step), file=sys.stderr, flush=True)

        try:
            with held_interrupt() as interrupted:
                state = lab.tune(
                    model, examples, init=init, held_out=arguments.held_out or None, on_step=show_step,
                    cancel=interrupted, **options,
                )  # fmt: skip
        except RwkvLabError as error:
            if first and isinstance(state := getattr(error, "state", None), lab.State) and (last or not fresh):
                with suppress(RwkvLabError):  # of a full disk, say
                    _save(state, out, arguments)
            raise _located(error, places) from error.__cause__
        stopped = interrupted.is_set() and last < arguments.steps
        if first and stopped and not last and fresh:
            _say("interrupted before the first step: nothing is saved")
        elif first:
            _save(state, out, arguments)
            if note and out.suffix.lower() != ".safetensors":  # whose card says so
                _say("the examples were read as they stand: ask from this state with --template raw")
            if stopped and arguments.checkpoint and not arguments.overwrite:
                _say("the same command with --overwrite goes on from here")
        return INTERRUPTED if stopped else 0


def _say(text: str) -> None:
    print(f"rwkvlab: note: {text}", file=sys.stderr)


def _located(error: RwkvLabError, places: Sequence[str]) -> RwkvLabError:
    """An error that names an example, with its place in the file; any other as it is."""
    found = re.match(r"examples\[(\d+)\]", str(error))
    return TuneError(places[int(found[1])] + str(error)[found.end() :]) if found else error


@contextmanager
def _ranks(arguments: argparse.Namespace) -> Iterator[bool]:
    """Join the other processes where torchrun started this one; yields whether it is the first, or alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ or distributed.is_initialized():
        yield True
        return
    gpu = torch.cuda.is_available() and arguments.device in ("auto", "cuda")
    if gpu:
        arguments.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(arguments.device)
    distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def _teacher(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    return utf8_file(given[1:], _LONGEST)[1]


def _place(arguments: argparse.Namespace) -> Path:
    out = Path(arguments.out)
    if out.suffix.lower() not in SUFFIXES:
        raise ArgError(f"{show(out)}: need a name ending in .pth, .state, .st or .safetensors")
    if arguments.shifts and out.suffix.lower() != ".safetensors":
        raise ArgError(f"{show(out)}: token shifts are trained, which only .safetensors holds; choose that ending")
    if not arguments.overwrite and os.path.lexists(out):
        raise SaveError(f"{show(out)}: is there already; choose another name, or pass overwrite=True")
    if arguments.checkpoint and os.path.abspath(arguments.checkpoint) == os.path.abspath(out):
        raise ArgError(f"{show(out)}: is to be the checkpoint too; choose another name for one of them")
    if not out.parent.is_dir():
        raise PathError(f"{show(out.parent)}: no such folder; make it first")
    return out


def _save(state: lab.State, out: Path, arguments: argparse.Namespace) -> None:
    path = lab.save_state(state, out, overwrite=arguments.overwrite)
    print(f"{show(path, 300)[1:-1]}: {show(state.card.recipe, 300)[1:-1]}")


def _line(step: TuneStep) -> str:
    return str(step)
