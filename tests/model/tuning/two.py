"""Run by a test in two processes that share a run (gloo): what each saw, as JSON in the folder that is given."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from torch import distributed as dist

import rwkvlab as lab
from rwkvlab.errors import RwkvLabError
from rwkvlab.tasks.builtin import micro_tasks

PAIRS = list(micro_tasks(64, held_out=False)[1].examples())
SETTINGS = {"steps": 12, "lr": 0.05, "batch": 7, "held_out": 0.2, "check": 3}


def outcome(rank, kind, folder):
    """Tune as the case says; what came of it."""
    model, _ = lab.bundled("micro")
    seen, options = [], dict(SETTINGS)
    pairs, cancel = PAIRS, threading.Event()

    def on_step(step):
        seen.append(step)
        if kind == "breaks" and step.step == 3:
            raise OSError("the callback's own")
        if kind == "interrupt" and step.step == 4:
            Path(folder, "now").touch()
            time.sleep(0.5)
        if kind == "stopped" and step.step == 5:
            cancel.set()

    if kind == "teacher":
        options |= {"teacher": "abc>cba\n", "teacher_weight": 0.5, "shifts": True}
    if kind == "alone":
        options |= {"batch": 1, "held_out": None, "check": None}
    if kind == "differ":
        pairs = PAIRS[rank:]
    if kind == "diverges":
        options |= {"init": lab.State(torch.full((2, 4, 16, 16), 1e30), like=model), "held_out": None, "check": None}
    if kind in ("checkpoint", "other"):
        options |= {"checkpoint": Path(folder, "run.ckpt"), "every": 1}
    if kind in ("stopped", "again"):
        options |= {"checkpoint": Path(folder, "stopped.ckpt"), "every": 1}
    if kind == "other":
        options |= {"lr": 0.06}
    if kind == "interrupt" and rank == 1:
        watch_for_interrupt(Path(folder, "now"))
    try:
        state = lab.tune(model, pairs, on_step=on_step, cancel=cancel, **options)
    except (RwkvLabError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}", "seen": len(seen)}
    lab.save_state(state, Path(folder, f"{kind}-{rank}.safetensors"), overwrite=True)
    return {"seen": [(step.step, step.loss, step.held_out, step.norm) for step in seen], "recipe": state.card.recipe}


def watch_for_interrupt(path):
    """Ctrl-C in this process alone, once the file is there."""

    def watch():
        while not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def main(folder, rank, world, kinds):
    """One process; world 1 shares with nobody."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    found = {kind: outcome(rank, kind, folder) for kind in kinds}
    Path(folder, f"out-{world}-{rank}.json").write_text(json.dumps(found))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
