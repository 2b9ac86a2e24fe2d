"""The recipe of the micro model: `python -m rwkvlab.bundled.micro_recipe --out DIR` trains it and tunes its states."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.bundled import initial
from rwkvlab.bundled.micro_data import VOCAB, Batch, batch, vocabulary
from rwkvlab.bundled.micro_measure import measure
from rwkvlab.bundled.shelf import SEEDS, states_folder
from rwkvlab.model import rwkv7
from rwkvlab.model.engine import Model, load_model
from rwkvlab.model.parts import Flow, Way
from rwkvlab.model.tuning import tune
from rwkvlab.shapes import Dims
from rwkvlab.states.files import save_state
from rwkvlab.states.state import State
from rwkvlab.tasks.builtin import micro_tasks
from rwkvlab.tensorfile import atomic_write, write_pth

DIMS = Dims(arch="x070", L=2, H=4, C=64, K=16, V=16, ffn=256, vocab=VOCAB)
RANKS = {"w": 16, "a": 16, "v": 16, "g": 16}
LOGGED = 50  # steps


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how the micro model and its states come out.

    noise is the share of documents that are read from a random initial state: so the model learns to go on as usual
    from a state that means nothing, and only a state that means something moves it.
    """

    seed: int = 0
    steps: int = 3000
    batch: int = 64
    lr: float = 4e-3
    warmup: int = 100
    weight_decay: float = 0.1
    noise: float = 0.5
    tune_examples: int = 2048
    tune_steps: int = 400
    tune_batch: int = 16
    tune_lr: float = 0.03


@dataclass(frozen=True)
class Step:
    """One training step, from 1: the weighted loss of its batch in nats a token, and the seconds so far."""

    step: int
    loss: float
    seconds: float


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Return the micro model's weights before training, to be trained."""
    return {key: value.requires_grad_() for key, value in initial.initial_weights(DIMS, RANKS, seed).items()}


def train(recipe: Recipe, weights: dict[str, Tensor]) -> Iterator[Step]:
    """Train `weights` in place, step by step; the same recipe gives the same steps."""
    rng, generator = random.Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    matrix = {key: min(value.shape) > max(RANKS.values()) and value.dim() == 2 for key, value in weights.items()}
    groups = [
        {"params": [weights[key] for key in weights if matrix[key]], "weight_decay": recipe.weight_decay},
        {"params": [weights[key] for key in weights if not matrix[key]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.99), eps=1e-12)
    begin = time.perf_counter()
    for step in range(recipe.steps):
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * fall * min(1.0, (step + 1) / recipe.warmup)
        optimizer.zero_grad()
        data = batch(rng, recipe.batch)
        loss = _loss(weights, data, random_starts(recipe.batch, recipe.noise, generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        yield Step(step + 1, float(loss.detach()), time.perf_counter() - begin)


def random_starts(rows: int, share: float, generator: torch.Generator) -> list[Tensor]:
    """Return an initial WKV state [B,H,V,K] a layer: zeros, but noise of any norm and rank in a `share` of rows."""
    return list(initial.random_starts(DIMS, rows, share, generator).unbind(0))


def _loss(weights: dict[str, Tensor], data: Batch, starts: list[Tensor]) -> Tensor:
    att, ffn = ([torch.zeros(len(data.tokens), DIMS.C) for _ in range(DIMS.L)] for _ in range(2))
    flow = Flow(starts, att, ffn)
    x = rwkv7.run(rwkv7.prepare(weights, DIMS), data.tokens, flow, Way(backend="chunked"))
    losses = F.cross_entropy((x @ weights["head.weight"].T).flatten(0, 1), data.targets.flatten(), reduction="none")
    return (losses * data.weights.flatten()).sum() / data.weights.sum()


def tune_states(recipe: Recipe, model: Model, seed: int = 0) -> dict[str, State]:
    """Tune one state a task, on queries that are not held out; another seed has other queries in another order."""
    states = {}
    for task in micro_tasks(recipe.tune_examples, seed, held_out=False):
        state = tune(model, task.examples(), steps=recipe.tune_steps, lr=recipe.tune_lr, batch=recipe.tune_batch,
                     seed=seed, template="raw")  # fmt: skip
        states[task.name] = state.named(task.name)
    return states


def _log(recipe: Recipe, steps: list[Step]) -> dict[str, object]:
    means = [sum(step.loss for step in steps[at : at + LOGGED]) / LOGGED for at in range(0, len(steps), LOGGED)]
    return {
        "recipe": asdict(recipe),
        "torch": torch.__version__,
        "seconds": round(steps[-1].seconds),
        "first losses": [step.loss for step in steps[:LOGGED]],
        f"mean losses of {LOGGED} steps": [round(mean, 5) for mean in means],
    }


def _write_json(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    atomic_write(path, lambda file: file.write(text.encode()))


def main(argv: list[str] | None = None) -> None:
    """Make micro.pth, vocab.txt, log.json, the states of every seed (states/, seeds/1/ …) and card.json in a folder."""
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.micro_recipe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--keep", action="store_true", help="keep the micro.pth that is there; tune and measure only")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="the seeds whose states are tuned")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    recipe, out = Recipe(), args.out
    out.mkdir(parents=True, exist_ok=True)
    if not args.keep:
        weights = initial_weights(recipe.seed)
        steps = []
        for step in train(recipe, weights):
            steps.append(step)
            if step.step % LOGGED == 0:
                print(f"step {step.step} of {recipe.steps}: loss {step.loss:.4f}, {step.seconds:.0f} s", flush=True)
        write_pth(out / "micro.pth", {key: value.detach() for key, value in weights.items()})
        _write_text(out / "vocab.txt", vocabulary())
        _write_json(out / "log.json", _log(recipe, steps))
    model = load_model(out / "micro.pth", device="cpu", tokenizer=out / "vocab.txt")
    about = {"name": "micro", "dims": asdict(DIMS), "fingerprint": model.card.fingerprint, "recipe": asdict(recipe)}
    card = json.loads((out / "card.json").read_text("utf-8")) if args.keep and (out / "card.json").exists() else {}
    card |= about | {"held-out queries": 500}
    for seed in args.seeds:
        states, folder = tune_states(recipe, model, seed), states_folder(out, seed)
        folder.mkdir(parents=True, exist_ok=True)
        for name, state in states.items():
            save_state(state, folder / f"{name}.safetensors")
        print(f"seed {seed}: tuned {', '.join(states)}; measuring", flush=True)
        card["accuracy" if seed == 0 else f"accuracy, seed {seed}"] = measure(model, states, n=500)
        _write_json(out / "card.json", card)


if __name__ == "__main__":
    main()
