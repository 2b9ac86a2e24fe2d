"""rwkvlab inspect: what files are and what is in them, one in full or many as a table."""

from __future__ import annotations

import argparse
import math
from typing import Any

import rwkvlab as lab
from rwkvlab.cli.opening import BUNDLED, file_of
from rwkvlab.cli.texts import as_json
from rwkvlab.cli.wording import in_options
from rwkvlab.errors import show
from rwkvlab.model.inspect import inspect_all
from rwkvlab.model.inspect_base import known_models
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.columns import straight
from rwkvlab.states.render import size_text

_HEADS = ("file", "is", "made for", "geometry", "stored", "norm", "largest", "size")


def add_inspect(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    one = commands.add_parser("inspect", parents=[common], help="what files are, and what is in them")
    one.add_argument("files", nargs="+", metavar="FILE", help=f"a model (also {', '.join(BUNDLED)}), a state, a folder")
    one.add_argument("--model", "-m", action="append", default=[], help="a base model to check states against")
    one.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    one.add_argument("--quick", action="store_true", help="headers only: no norms, no ranges, no sha256")
    one.set_defaults(run=inspect_command)


def inspect_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Print a block for one file, a table for several; the exit code is 1 where one of them cannot be used."""
    models = known_models([file_of(model) for model in arguments.model])
    reports = inspect_all([file_of(file) for file in arguments.files], models, values=not arguments.quick)
    if arguments.json:
        print(as_json([report.to_dict() for report in reports]))
    elif len(reports) == 1:
        print(reports[0].replace(sure=in_options(reports[0].sure), problem=in_options(reports[0].problem)))
    else:
        print(_table(reports, list(models)))
    return int(any(report.problem for report in reports))


def _table(reports: list[lab.FileReport], models: list[str]) -> str:
    """Return one line a file, and below them what is to be said of some."""
    if not reports:
        return "no model and no state is there"
    heads = [*_HEADS, *(f"fits {show(model, 24)[1:-1]}" for model in models)]
    rows, said = [], []
    same: dict[str, list[str]] = {}
    for report in reports:
        name, row = show(report.file, 100)[1:-1], report.row()
        geometry = f"L{report.L} H{report.H} K{report.K}" if report.L else ""
        stored = " ".join((*report.dtypes, report.orientation, row["sure"]))
        kind, arch = show(report.kind, 40)[1:-1], ARCH_NAMES.get(report.arch, "")
        values = (_number(row["norm"]), _number(row["largest"]), size_text(report.bytes))
        rows.append([name, kind, arch, geometry, stored, *values, *(_fits(report, model) for model in models)])
        reasons = [report.problem, *(f"{show(model, 40)[1:-1]}: {why}" for model, why in report.fits.items() if why)]
        said += [f"{name}: {in_options(show(reason, 600)[1:-1])}" for reason in (*reasons, *report.warnings) if reason]
        same.setdefault(report.sha256, []).append(name)
    said += [f"{', '.join(names)}: the same bytes" for sha, names in same.items() if sha and len(names) > 1]
    return "\n".join([*straight([heads, *rows], [100] * len(heads)), *said])


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _fits(report: lab.FileReport, model: str) -> str:
    if model not in report.fits:
        return ""
    return "no" if report.fits[model] else f"yes, by {report.fits_by}"
