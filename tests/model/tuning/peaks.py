"""Run by a test: prints the estimated and the measured peak of a step of tuning, as JSON, a case a line."""

import json
import os
import re

import torch

from rwkvlab.model.engine import Model
from rwkvlab.model.examples import Encoded
from rwkvlab.model.parts import Way
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.tuning import tuning_memory
from rwkvlab.model.tuning.graphed import GraphedPass
from rwkvlab.model.tuning.loss import Objective
from rwkvlab.model.tuning.ranks import Ranks
from rwkvlab.model.tuning.run import Run
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims

RANKS = {"w": 32, "a": 32, "v": 16, "g": 32, "maa": 16, "decay": 32}
B, T = 8, 160


def status(name):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{name}:\s+(\d+)", file.read())[1]) * 1024


def case(arch, layers, vocab, counted, again, taught, dtype):
    """Measure one step beside the estimate."""
    dims = Dims(arch, L=layers, H=4, C=256, K=64, V=64, ffn=1024, vocab=vocab)
    weights = {key: value.to(dtype) for key, value in random_weights(dims, RANKS, 0).items()}
    model = Model(Checkpoint(dims, weights, "5" * 64), "random")
    way = Way(backend=None, recompute=True) if again else None
    objective = Objective(model, model.zero() if taught else None, 1.0, GraphedPass(model, way))
    run = Run(objective, model.zero(), False, 0.01, [], B, Ranks(model.device))
    wanted = [False] * (T + 1 - counted // B) + [True] * (counted // B)
    run.step([Encoded([1, 2, 3], [False, True, True])], 0.01, 9)
    guess = tuning_memory(model, B, T, counted=counted, teacher=taught, checkpointing=again)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    run.step([Encoded([1] * (T + 1), wanted)] * B, 0.01, 9)
    return {"guess": guess, "peak": status("VmHWM") - before}


def main():
    """Every case in a child of its own, so that none profits from what another left."""
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1)])
    for arch in ("x070", "x060", "x052"):
        for rest in ((6, 300, 64, False, False, torch.float32),
                     (6, 300, 64, True, False, torch.float32),
                     (1, 20000, 1280, False, True, torch.float32)):  # fmt: skip
            pid = os.fork()
            if pid == 0:
                print(json.dumps({"case": f"{arch} {rest}", **case(arch, *rest)}), flush=True)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main()
