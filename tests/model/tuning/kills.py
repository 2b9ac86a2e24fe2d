"""Run by a test: a run of tuning is killed again and again, at any moment and inside a write, and goes on each time.

Prints what it saw as JSON. Children are forked from a process that has imported everything and used no thread.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import rwkvlab as lab
from rwkvlab.tasks.builtin import micro_tasks

KILLS, STEPS = 30, 120


def go(model, out, checkpoint, log=None):
    """What a user calls."""
    examples = micro_tasks(200, held_out=False)[1].examples()

    def seen(step):
        if log is not None:
            with log.open("a") as file:
                file.write(f"{step.step}\n")

    state = lab.tune(
        model, examples, steps=STEPS, batch=4, lr=0.05, held_out=0.1, check=10, checkpoint=checkpoint, every=1,
        on_step=seen,
    )  # fmt: skip
    lab.save_state(state, out)


def die_in_a_write(rng):
    """Let this process die at one of the calls of a write to come, or half-way through its bytes."""
    name, left = rng.choice(["fsync", "replace", "write", "after"]), rng.randrange(1, 6)
    left += 12 if name == "write" else 0
    real = {"fsync": os.fsync, "replace": os.replace}

    def dying(*args):
        nonlocal left
        left -= 1
        if left == 0:
            if name == "after":
                os.replace = real["replace"]
                os.replace(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return real["fsync" if name == "fsync" else "replace"](*args)

    if name == "write":
        import rwkvlab.tensorfile.writers as writers

        bytes_of = writers._bytes

        def cut(tensor):
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return bytes_of(tensor)

        writers._bytes = cut
    else:
        setattr(os, "fsync" if name == "fsync" else "replace", dying)


def main(folder, seed):
    """Kill, go on, and compare with a run that was left alone."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    model, _ = lab.bundled("micro")
    _ = model.digests, model.tokenizer, torch.optim.Adam([torch.zeros(1)])  # all is imported here, once
    log, ends = folder / "log", []

    def child(out, checkpoint, dies=False, number=0):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if dies:
                    die_in_a_write(random.Random(number))
                go(model, folder / out, checkpoint, log if out == "killed.safetensors" else None)
                code = 0
            finally:
                os._exit(code)
        return pid

    started = time.perf_counter()
    assert os.waitpid(child("whole.safetensors", folder / "whole.ckpt"), 0)[1] == 0
    whole = time.perf_counter() - started
    for number in range(KILLS):
        pid = child("killed.safetensors", folder / "killed.ckpt", dies=number % 2 == 1, number=number)
        if number % 2 == 0:
            time.sleep(rng.uniform(0, whole / 6))
            os.kill(pid, signal.SIGKILL)
        ends.append(os.waitpid(pid, 0)[1])
    os.waitpid(child("killed.safetensors", folder / "killed.ckpt"), 0)
    steps = [int(line) for line in log.read_text().split()]
    same = (folder / "whole.safetensors").read_bytes() == (folder / "killed.safetensors").read_bytes()
    left = sorted(path.name for path in folder.iterdir())
    print(json.dumps({"ends": ends, "steps": steps, "same": same, "left": left, "seconds": whole}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
