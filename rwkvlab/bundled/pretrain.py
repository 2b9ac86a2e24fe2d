"""Trains a bundled model on documents of a small world: `python -m rwkvlab.bundled.pretrain --arch x070 --data …`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rwkvlab.bundled.evidence_asking import Ask, ask
from rwkvlab.bundled.feeding import KINDS, Feed
from rwkvlab.bundled.initial import initial_weights
from rwkvlab.bundled.micro_data import Batch
from rwkvlab.bundled.mix import Mix
from rwkvlab.bundled.pretrain_run import Run
from rwkvlab.bundled.training import Recipe, Trainer
from rwkvlab.errors import ArgError
from rwkvlab.model.engine import load_model
from rwkvlab.shapes import Dims
from rwkvlab.tasks.builtin import micro_tasks
from rwkvlab.tasks.styleworld import world_tasks
from rwkvlab.tensorfile import atomic_write

NAMES = {"x070": "rwkv7", "x060": "rwkv6"}
DIMS = {arch: Dims(arch=arch, L=6, H=4, C=256, K=64, V=64, ffn=512, vocab=3584) for arch in NAMES}
RANKS = {"x070": {"w": 32, "a": 32, "v": 16, "g": 32}, "x060": {"maa": 16, "decay": 32}}
HELD_OUT = 2  # batches of each kind
LOOKED = 100  # questions of each task, at the end


def draw_step(mix: Mix, recipe: Recipe, step: int) -> list[Batch]:
    """Return the batches of a step, one a kind."""
    return [mix.draw(recipe.seed, step, kind.name, recipe.rows_of(kind.name), kind.length) for kind in KINDS]


def draw_held_out(mix: Mix, recipe: Recipe) -> dict[str, list[Batch]]:
    """Return some batches of each kind that are made of what is kept out of training."""
    return {
        kind.name: [
            mix.draw(recipe.seed, step, kind.name, recipe.rows_of(kind.name), kind.length, held_out=True)
            for step in range(HELD_OUT)
        ]
        for kind in KINDS
    }


def look(path: Path, vocab: Path, device: str, n: int = LOOKED) -> dict[str, dict[str, float]]:
    """Return the shares of `n` held-out questions of each task that are answered rightly, with the tag and without."""
    model, shares = load_model(path, device=device, tokenizer=vocab), {}
    for name, tagged in (("tag", True), ("no tag", False)):
        right = {}
        for stop, tasks in (("\n", micro_tasks(n, tagged=tagged)), ("\n\n", world_tasks(n, tagged=tagged))):
            for task in tasks:
                pairs = [(prompt, told.removesuffix(stop)) for prompt, told in task.examples()]
                asks = [Ask(model.encode(prompt), model.encode(told)) for prompt, told in pairs]
                right[task.name] = sum(said.exact for said in ask(model, asks, stop, most=0)) / n
        shares[name] = right
    return shares


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.pretrain", description=__doc__)
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("--arch", choices=list(NAMES), required=True, help="which of the two models")
    add("--data", type=Path, required=True, help="the folder of the texts and of vocab.txt")
    add("--out", type=Path, required=True, help="the folder to write to")
    add("--steps", type=int, default=Recipe.steps, help="steps of training (%(default)s)")
    add("--seconds", type=float, help="plan the steps so that training ends so long after the start")
    add("--tokens", type=int, default=Recipe.tokens, help="tokens of a step, padding counted (%(default)s)")
    add("--lr", type=float, default=Recipe.lr, help="the highest learning rate (%(default)s)")
    add("--seed", type=int, default=Recipe.seed, help="of the weights, the documents and the noise (%(default)s)")
    add("--device", choices=["cuda", "cpu"], help="where to train (cuda, if there is one)")
    add("--dtype", choices=["bf16", "fp32"], help="of the passes (bf16, on a CPU fp32)")
    add("--compile", action=switch, default=False, help="pass through torch.compile, which takes minutes to begin")
    add("--graphs", action=switch, default=True, help="record each kind's pass as a CUDA graph")
    add("--workers", type=int, default=min(12, max(1, (os.cpu_count() or 1) - 2)), help="that draw documents")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train; write rwkv7.pth or rwkv6.pth (bf16), vocab.txt and log.json to a folder, on the way too."""
    begin, args = time.perf_counter(), _arguments(argv)
    torch.set_num_threads(1)  # nothing that the workers could inherit half of
    if args.seconds is not None and args.steps != Recipe.steps:
        raise ArgError("pretrain: --steps and --seconds: give one of them")
    recipe = replace(Recipe(), seed=args.seed, steps=args.steps, tokens=args.tokens, lr=args.lr)
    mix = Mix(args.data, args.data / "vocab.txt")
    feed = Feed(partial(draw_step, mix, recipe), args.workers)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        vocab, path = args.out / "vocab.txt", args.out / f"{NAMES[args.arch]}.pth"
        words = (args.data / "vocab.txt").read_bytes()
        atomic_write(vocab, lambda file: file.write(words))
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dims = DIMS[args.arch]
        half = args.dtype == "bf16" or (args.dtype is None and device.type == "cuda")
        weights = initial_weights(dims, RANKS[args.arch], recipe.seed)
        trainer = Trainer(
            weights, dims, recipe, device, torch.bfloat16 if half else torch.float32,
            compiled="inductor" if args.compile else "", graphs=args.graphs,
        )  # fmt: skip
        count = sum(x.numel() for x in weights.values())
        print(
            f"{dims}: {count / 1e6:.2f} M weights, {args.workers} workers, {time.perf_counter() - begin:.1f} s to here"
        )
        run = Run(trainer, feed, draw_held_out(mix, recipe), path, begin=begin, seconds=args.seconds)
        run.go()
    finally:
        feed.close()
    shares = look(path, vocab, device.type)
    run.write_log(**{f"right, of {LOOKED} held-out questions": shares})
    for name, tasks in shares.items():
        print(f"{name}: " + ", ".join(f"{task} {share:.2f}" for task, share in tasks.items()), flush=True)


if __name__ == "__main__":
    main()
