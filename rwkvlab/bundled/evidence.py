"""Evidence that states work: `python -m rwkvlab.bundled.evidence --model DIR --data DIR --work DIR --out DIR --card`.

Asks states and their controls what is held out, writes tables, figures and a summary to OUT, and prints whether what
must hold does; --card puts the summary into the model's card.json too, in the place of the one that is there.

Needed: in --data the texts that `rwkvlab.bundled.corpus` makes, and states of the tuning seeds 0 to 4, from
`python -m rwkvlab.bundled.world_recipe --model DIR --data DIR --work DIR`. It puts those of seed 0 into the model's
states/, in the place of what is there (so give it a copy of a bundled model), and the others into --work.
`--seeds 0` asks what is in states/ alone and needs no --work.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rwkvlab.bundled.corpus import SOURCES, read_source
from rwkvlab.bundled.evidence_arms import ARMS, RANDOM, run_arms
from rwkvlab.bundled.evidence_tables import by_seed, card_summary, lifts, musts, summary
from rwkvlab.bundled.evidence_texts import margins, run_texts, text_table
from rwkvlab.bundled.shelf import open_world
from rwkvlab.bundled.skills import SKILLS, Skill, skill_of
from rwkvlab.bundled.world_recipe import SEEDS, read_states, states_folder, write_card
from rwkvlab.errors import PathError, RwkvLabError, show
from rwkvlab.model.engine import Model
from rwkvlab.tensorfile import atomic_write


def write_tables(out: Path, rows: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """Write the CSV tables to a folder and return them by name."""
    tables = {"arms_by_seed": by_seed(rows), "arms": summary(rows), "lifts": lifts(rows)}
    if texts is not None:
        tables |= {"texts_by_seed": text_table(texts, by_seed=True), "texts": text_table(texts, by_seed=False)}
        tables["margins"] = pd.concat([margins(texts, part).assign(part=part) for part in texts["part"].unique()])
    for name, table in tables.items():
        data = table.to_csv(index=False, float_format="%.6g").encode()
        atomic_write(out / f"{name}.csv", lambda file, data=data: file.write(data))  # type: ignore[misc]
    return tables


def write_figures(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Draw the accuracies by arm and task, and the matrix of bits per byte of texts and states."""
    from rwkvlab.plots.outcomes import plot_accuracy, plot_matrix
    from rwkvlab.plots.panels import Panels

    table = tables["arms"]
    for family in table["family"].unique():
        names = ("style", "content") if family == "style" else ("exact",)
        figure = Panels(figsize=(7.5 * len(names), 5.2), layout="constrained")
        for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            some = table[table["family"] == family]
            plot_accuracy(some.assign(state=some["arm"], accuracy=some[name])[["state", "task", "accuracy"]], ax=ax)
            ax.set_title(f"held-out {family}s: {name} right")
            ax.set_ylabel("arm")
        _save(out / f"accuracy_{family}s.png", figure)
    if "texts" in tables:
        parts = ("first 100", "after 100")
        figure = Panels(figsize=(13, 4), layout="constrained")
        for ax, part in zip(figure.subplots(1, 2), parts, strict=True):
            some = tables["texts"]
            some = some[(some["part"] == part) & some["arm"].isin(("no state", "tag", "state"))]
            start = some["which"].where(some["arm"] == "state", some["arm"])
            cells = pd.DataFrame({"text": some["task"], "start": start, "bits_per_byte": some["bits_per_byte"]})
            plot_matrix(cells, "text", "start", "bits_per_byte", ax=ax, best="low", digits=3)
            ax.set_title(f"{part} tokens")
        _save(out / "texts.png", figure)


def _save(path: Path, figure: Any) -> None:
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _skills(sources: bool) -> list[Skill]:
    return [skill for skill in SKILLS if sources or skill.family != "source"]


def gather(model: Model, folder: Path, work: Path | None, seeds: Sequence[int], sources: bool) -> dict[Any, Any]:
    """Return the states of every skill and seed."""
    skills = _skills(sources)
    return {
        (skill, seed): state
        for seed in seeds
        for skill, state in read_states(model, states_folder(folder, work or folder, seed, seeds[0]), skills).items()
    }


def check_there(folder: Path, work: Path | None, seeds: Sequence[int], data: Path | None) -> None:
    """Raise PathError, which says what makes them, where states of the seeds or held-out texts are missing."""
    lacking = {}
    for seed in seeds:
        place = states_folder(folder, work or folder, seed, seeds[0])
        names = {skill_of(path.name) for path in place.glob("*.safetensors")}
        if missing := [skill.name for skill in _skills(data is not None) if skill not in names]:
            lacking[seed] = f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''} in {show(place, 200)}"
    if lacking:
        first, there = next(iter(lacking.values())), [str(seed) for seed in seeds if seed not in lacking]
        given = ["--model", folder, *(["--data", data] if data else []), "--work", work or folder, "--seeds", *seeds]
        rest = f", or ask the others alone: --seeds {' '.join(there)}" if seeds[0] not in lacking else ""
        raise PathError(
            f"--seeds: states of seed {', '.join(map(str, lacking))} are missing ({first}); make them with `python -m "
            f"rwkvlab.bundled.world_recipe {shlex.join(map(str, given))}`, on a copy of a bundled model, since it "
            f"replaces what is in MODEL/states too{rest}"
        )
    for source in SOURCES if data else ():
        read_source(data, source, held_out=True)  # type: ignore[arg-type]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rwkvlab.bundled.evidence", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the folder of NAME.pth, vocab.txt and states/")
    add("--data", type=Path, help="the folder of the texts (without it, no matrix)")
    add("--work", type=Path, help="the folder of the states of the further seeds")
    add("--out", type=Path, required=True, help="the folder for tables and figures")
    add("--n", type=int, default=100, help="questions of each task, and texts of each source (%(default)s)")
    add("--seeds", type=int, nargs="+", default=list(SEEDS), help="the tuning seeds, the one beside the model first")
    add("--draws", type=int, default=RANDOM, help="random states with the same singular values (%(default)s)")
    add("--seed", type=int, default=0, help="of the questions (%(default)s)")
    add("--device", default="auto", help="cuda or cpu (what there is)")
    add("--card", action="store_true", help="write the summary into the model's card.json (without it, to OUT alone)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 where something that must hold does not, 2 for a mistake, told in one line."""
    args = _arguments(argv)
    try:
        return _run(args)
    except RwkvLabError as error:
        print(f"evidence: error: {show(error, 2000)[1:-1]}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    """Write tables, figures and the summary; returns main's 0 or 1."""
    begin = time.perf_counter()
    model = open_world(args.model, args.device)
    check_there(args.model, args.work, args.seeds, args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    states = gather(model, args.model, args.work, args.seeds, args.data is not None)
    rows = run_arms(model, states, args.seeds, n=args.n, seed=args.seed, draws=args.draws)
    print(f"{len(rows):,} questions asked, {time.perf_counter() - begin:.0f} s", flush=True)
    texts = None
    if args.data is not None:
        texts = run_texts(model, states, args.seeds, args.data, n=args.n, draws=args.draws)
        print(f"{len(texts):,} parts of texts read, {time.perf_counter() - begin:.0f} s", flush=True)
    tables = write_tables(args.out, rows, texts)
    said = list(musts(rows, None if texts is None else margins(texts)))
    found = card_summary(tables, said, args.n, args.seeds)
    atomic_write(args.out / "summary.json", lambda file: file.write(_json(found)))
    if args.card:
        write_card(args.model, {"evidence": found})
    write_figures(args.out, tables)
    table = tables["arms"]
    print(table.pivot(index="arm", columns="task", values="exact").reindex(ARMS).round(2).to_string())
    for one in said:
        print(f"{'holds' if one.holds else 'DOES NOT HOLD'}: {one.what} ({one.detail})")
    print(f"{time.perf_counter() - begin:.0f} s; card.json {'written' if args.card else 'left as it was (see --card)'}")
    return 0 if all(one.holds for one in said) else 1


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    raise SystemExit(main())
