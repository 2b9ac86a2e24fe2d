"""Which settings tune best: sweeps of learning rate, schedule, optimiser and start on a bundled model's tasks."""

import argparse
import math
import statistics
import time

import torch

import rwkvlab as lab
from rwkvlab.model.examples import batches, encode_examples
from rwkvlab.model.tuning.loss import Objective
from rwkvlab.model.tuning.norms import NormGuard
from rwkvlab.model.tuning.ranks import Ranks
from rwkvlab.model.tuning.run import Run
from rwkvlab.tasks.builtin import micro_tasks

SCHEDULES = {
    "cosine": lambda at: 0.5 * (1 + math.cos(math.pi * at)),
    "constant": lambda at: 1.0,
    "linear": lambda at: 1 - at,
    "cosine, a tenth of warm-up": lambda at: min(1.0, 10 * at + 0.01) * 0.5 * (1 + math.cos(math.pi * at)),
}
OPTIMISERS = {
    "Adam": lambda params, lr: torch.optim.Adam(params, lr=lr),
    "Adam, betas 0.9 0.99": lambda params, lr: torch.optim.Adam(params, lr=lr, betas=(0.9, 0.99)),
    "AdamW, decay 0.1": lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=0.1),
    "RMSprop": lambda params, lr: torch.optim.RMSprop(params, lr=lr),
    "SGD, momentum 0.9": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
}
RATES = (0.003, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 1.0)


def one(model, task, held, args, seed, lr=0.04, schedule="cosine", optimiser="Adam", start=0.0, batch=16):
    """Tune on one task: (held-out loss, share of right answers, largest multiple of a normal norm)."""
    rows, apart = (encode_examples(model, some.examples(), "raw") for some in (task, held))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(model.zero().wkv.shape, generator=generator)
    state = lab.State(start * noise / noise.norm(dim=(-2, -1), keepdim=True), like=model)
    run = Run(Objective(model), state, False, lr, apart, 64, Ranks(model.device))
    run.optimizer = OPTIMISERS[optimiser](run.trained, lr)
    queue = batches(rows, batch, seed)
    for step in range(args.steps):
        run.step(next(queue), lr * SCHEDULES[schedule](step / args.steps), args.steps)
    loss, state = run.measure(lambda: False), run.state("raw", "")
    said = model.generate_batch(held.prompts, state, temperature=0, max_tokens=12)
    right = sum(held.grade([answer.text for answer in said])) / len(said)
    return loss, right, NormGuard(model, rows).multiple(state.wkv)


def table(model, args, title, settings):
    """Print a line a setting: the mean over tasks and seeds, and the worst share of right answers."""
    print(f"\n{title:34s} held-out loss   right   worst   norm / normal   seconds", flush=True)
    for name, setting in settings.items():
        begin, found = time.perf_counter(), []
        for seed in range(args.seeds):
            tasks, held = micro_tasks(512, seed, held_out=False), micro_tasks(100, seed)
            pairs = list(zip(tasks, held, strict=True))[: args.tasks]
            found += [one(model, *pair, args, seed, **setting) for pair in pairs]
        losses, rights, multiples = zip(*found, strict=True)
        took = time.perf_counter() - begin
        print(
            f"{name:34s} {statistics.mean(losses):13.4f} {statistics.mean(rights):7.3f} {min(rights):7.2f} "
            f"{max(multiples):15.1f} {took:9.1f}",
            flush=True,
        )


def main():
    """Sweep what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="micro", help="a bundled model (%(default)s)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--what", nargs="*", default=["lr", "schedule", "optimiser", "start", "batch"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, _ = lab.bundled(args.model)
    print(f"{args.model}: {args.steps} steps, {args.tasks} tasks, {args.seeds} seeds, torch {torch.__version__}")
    sweeps = {
        "lr": {f"lr {lr:g}": {"lr": lr} for lr in RATES},
        "schedule": {name: {"schedule": name} for name in SCHEDULES},
        "optimiser": {name: {"optimiser": name, "lr": 3.0 if "SGD" in name else 0.04} for name in OPTIMISERS},
        "start": {f"noise of norm {norm:g} a head": {"start": norm} for norm in (0.0, 0.1, 1.0, 4.0)},
        "batch": {f"batch {size}": {"batch": size} for size in (4, 8, 16, 32, 64)},
    }
    for what in args.what:
        table(model, args, what, sweeps[what])


if __name__ == "__main__":
    main()
