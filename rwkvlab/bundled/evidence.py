"""The evidence that states work: `python -m rwkvlab.bundled.evidence --model DIR --data DIR --work DIR --out DIR`.

Reads the states that `world_recipe` tuned, asks them and their controls what is held out, writes tables and figures
to OUT and a summary into the model's card.json, and prints whether what must hold does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rwkvlab.bundled.evidence_arms import ARMS, RANDOM, run_arms
from rwkvlab.bundled.evidence_tables import Must, by_seed, lifts, musts, summary
from rwkvlab.bundled.evidence_texts import margins, run_texts, text_table
from rwkvlab.bundled.shelf import open_world
from rwkvlab.bundled.skills import SKILLS
from rwkvlab.bundled.world_recipe import SEEDS, read_states, states_folder, write_card
from rwkvlab.model.engine import Model
from rwkvlab.tensorfile import atomic_write

EXPLAINED = (
    "Mounting what was read, with its token-shifts, is the same as reading on: 'read tag' and 'read shots' come out "
    "as 'tag' and 'shots' do. Without the token-shifts the next token does not see the one before it.",
    "'tag' of swap and list is a tag that the model never met.",
    "Answers in the styles plain and chinese to Chinese questions are the same, so the states of these two are set "
    "against each other on English questions alone.",
)


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


def card_summary(tables: dict[str, pd.DataFrame], said: Sequence[Must], n: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what card.json keeps of the evidence: means by task and arm, the matrix, and what must hold."""
    found: dict[str, Any] = {"questions of each task": n, "tuning seeds": list(seeds)}
    found["musts"] = [{"what": one.what, "holds": one.holds, "numbers": one.detail} for one in said]
    found["explained"] = EXPLAINED
    for name in ("style", "content", "exact"):
        table = tables["arms"] if name == "exact" else tables["arms"][tables["arms"]["family"] == "style"]
        grid = table.pivot(index="arm", columns="task", values=name).round(3)
        found[f"{name} right"] = {arm: grid.loc[arm].dropna().to_dict() for arm in ARMS if arm in grid.index}
    if "texts" in tables:
        table = tables["texts"]
        table = table[(table["part"] == "all") & table["arm"].isin(("no state", "tag", "state"))]
        start = table["which"].where(table["arm"] == "state", table["arm"])
        grid = table.assign(start=start).pivot(index="task", columns="start", values="bits_per_byte").round(4)
        found["bits per byte, text by start"] = {str(name): row.to_dict() for name, row in grid.iterrows()}
    return found


def gather(model: Model, folder: Path, work: Path | None, seeds: Sequence[int], sources: bool) -> dict[Any, Any]:
    """Return the states of every skill and seed."""
    skills = [skill for skill in SKILLS if sources or skill.family != "source"]
    return {
        (skill, seed): state
        for seed in seeds
        for skill, state in read_states(model, states_folder(folder, work or folder, seed, seeds[0]), skills).items()
    }


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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write tables, figures and the card's summary; returns 1 where something that must hold does not."""
    begin, args = time.perf_counter(), _arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    model = open_world(args.model, args.device)
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
    write_card(args.model, {"evidence": found})
    write_figures(args.out, tables)
    table = tables["arms"]
    print(table.pivot(index="arm", columns="task", values="exact").reindex(ARMS).round(2).to_string())
    for one in said:
        print(f"{'holds' if one.holds else 'DOES NOT HOLD'}: {one.what} ({one.detail})")
    print(f"{time.perf_counter() - begin:.0f} s")
    return 0 if all(one.holds for one in said) else 1


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    raise SystemExit(main())
