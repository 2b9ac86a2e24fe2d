"""The demo: frozen models, the same prompts, different initial states; a table, some answers and a figure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

import rwkvlab as lab
from rwkvlab.cli.seed_scene import seed_scene
from rwkvlab.errors import PathError, printable, show
from rwkvlab.measure.comparing.grid import text_grid
from rwkvlab.measure.experiments.controls import CONTROLS, accuracies, controlled, lifts
from rwkvlab.tasks.builtin import micro_tasks
from rwkvlab.tensorfile import atomic_write

QUERIES = 100  # held out from training and tuning, the same for every task
LIFT = 0.05  # what no control may add to the zero state's accuracy


def demo(folder: str) -> None:
    """Ask the bundled model the same from zero, from its states and from controls; print tables, save a figure.

    Then the bundled world models answer one question from zero and from a state (`seed_scene`). folder is made where it
    is missing; raises PathError or SaveError where it cannot be written.
    """
    from rwkvlab.plots import plot_outcomes

    begun, out = time.perf_counter(), Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PathError(f"--out {show(out)}: cannot make this folder ({error.strerror}); name another") from error
    model, shelf = lab.bundled()
    tasks = [task for task in micro_tasks(QUERIES) if task.name in shelf]
    states = {task.name: shelf[task.name] for task in tasks}
    print(f"One frozen model, {model.dims}, that learned {len(tasks)} functions of a short string.")
    print("Nothing in a prompt, `query>`, tells which one is wanted; from row to row only the initial state differs.\n")
    rows = controlled(model, states, tasks)
    grid = accuracies(rows)
    cells = [[f"{value:.2f}" for value in line] for line in grid.to_numpy()]
    print(f"Share of whole answers right, greedy, {QUERIES} queries kept out of all training (last rows: controls):\n")
    print(text_grid([f"{name}" for name in grid.columns], list(zip(map(str, grid.index), cells, strict=True))) + "\n")
    lift = lifts(rows)
    own, best = lift[lift["state"] == lift["task"]]["lift"], lift[lift["state"].isin(CONTROLS)].iloc[0]
    rule = "holds" if best["lift"] <= LIFT else "DOES NOT HOLD"
    print(f"A task's own state lifts its accuracy above that of zero by {own.min():.2f} to {own.max():.2f}.")
    print(
        f"The best control is `{best['state']}`, {best['lift']:+.2f} on {best['task']}: at most {LIFT:+.2f} {rule}.\n"
    )
    print("Some of the prompts, answered from each start:\n")
    some = list(tasks[0].prompts[:4])
    print(lab.compare(model, some, states, template="raw", temperature=0.0, presence=0.0, frequency=0.0, max_tokens=9))
    print(f"\n{seed_scene()}")
    _save(out, plot_outcomes(states[tasks[0].name], rows), rows)
    made = printable(f"Figure: {out / 'demo.png'}, all answers: {out / 'answers.csv'}")
    print(f"\n{made} ({time.perf_counter() - begun:.0f} s).")
    print("Go on in a notebook: `make lab` or `rwkvlab lab`, and open 00_start_here.ipynb.")


def _save(out: Path, figure: Any, rows: pd.DataFrame) -> None:
    """Write demo.png and answers.csv, each whole or not at all."""
    atomic_write(out / "demo.png", lambda file: figure.savefig(file, format="png", dpi=130))
    text = rows.to_csv(index=False)
    atomic_write(out / "answers.csv", lambda file: file.write(text.encode(errors="backslashreplace")))
