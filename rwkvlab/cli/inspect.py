"""rwkvlab inspect: what files are and what is in them, one in full or many as a table."""

from __future__ import annotations

import argparse
import math
from typing import Any

from tqdm.auto import tqdm

import rwkvlab as lab
from rwkvlab.cli.texts import as_json
from rwkvlab.errors import show
from rwkvlab.model.file_report import size_text
from rwkvlab.model.inspect import expand, known_models
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.columns import pad, text_width


def add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("inspect", parents=[common], help="what files are, and what is in them")
    one.add_argument("files", nargs="+", metavar="FILE", help="a model, a state, a folder of them, or anything else")
    one.add_argument("--model", "-m", action="append", default=[], help="a base model to check states against")
    one.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    one.add_argument("--quick", action="store_true", help="headers only: no norms, no ranges, no sha256")
    one.set_defaults(run=inspect_command)


def inspect_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Print a block for one file, a table for several; the exit code is 1 where one of them cannot be used."""
    models, paths = known_models(arguments.model), expand(arguments.files)
    many = tqdm(paths, delay=2, desc="inspect") if len(paths) > 1 else paths
    reports = [lab.inspect_file(path, models, values=not arguments.quick) for path in many]
    if arguments.json:
        print(as_json([report.to_dict() for report in reports]))
    elif len(reports) == 1:
        print(reports[0])
    else:
        print(_table(reports, [model.card.name for model in models]))
    return int(any(report.problem for report in reports))


def _table(reports: list[lab.FileReport], models: list[str]) -> str:
    """Return one line a file, and below them what is wrong with some."""
    rows, problems = [], []
    for report in reports:
        name, values = show(report.file, 80)[1:-1], report.row()
        geometry = f"L{report.L} H{report.H} K{report.K}" if report.L else ""
        row = {"file": name, "is": show(report.kind, 40)[1:-1], "made for": ARCH_NAMES.get(report.arch, "")}
        row |= {"geometry": geometry, "stored": " ".join((*report.dtypes, report.orientation, values["sure"]))}
        row |= {"norm": _number(values["norm"]), "largest": _number(values["largest"])}
        row |= {"size": size_text(report.bytes)}
        row |= {f"fits {show(model, 40)[1:-1]}": _fits(report, model) for model in models}
        rows.append(row)
        reasons = [report.problem, *(f"{show(model, 40)[1:-1]}: {why}" for model, why in report.fits.items() if why)]
        problems += [f"{name}: {show(reason, 600)[1:-1]}" for reason in reasons if reason]
    if not rows:
        return "no model and no state is there"
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(text_width, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(pad, line, widths)).rstrip() for line in table]
    return "\n".join([*lines, *problems])


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _fits(report: lab.FileReport, model: str) -> str:
    return "" if model not in report.fits else "no" if report.fits[model] else "yes"
