"""diff: what two states or state files are, and what they differ in, on one page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rwkvlab.errors import ArgError, MismatchError, PromptError, show
from rwkvlab.hub import fetch
from rwkvlab.measure.diff_findings import nearest, related, same_files, same_kind, shifted, spliced
from rwkvlab.measure.diff_report import Difference
from rwkvlab.measure.distance import COMPARED, distances
from rwkvlab.measure.readout import listed_texts, readout_columns, readouts, receptance_moments
from rwkvlab.measure.spectrum import frobenius, norms
from rwkvlab.measure.verifying.texts import Text, encode_texts
from rwkvlab.states.files import load_state
from rwkvlab.states.fits import check_fits, check_model
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

RANK = 4  # directions that the angles are of
COLUMNS = ("layer", "head", "norm_a", "norm_b", *COMPARED)


def diff(
    a: State | str | os.PathLike[str],
    b: State | str | os.PathLike[str],
    model: Model | None = None,
    texts: str | Iterable[Text] | None = None,
) -> Difference:
    """Say what two states are, whether one was made from the other, and which heads differ most.

    a, b: states, or paths of state files (also "owner/repo/file"). With a model the states are also compared as it
    reads them (see `readout_distance`), along texts: one, or several, plain or as (question, answer) pairs, None for
    some of our own. Found out are equal files, equal matrices, a multiple, a transpose, heads that are equal where
    others are not (a splice), all up to the rounding of bf16, and differing token-shifts and cards. States that do not
    go together are no error: the summary says so. Returns a Difference, which shows itself as text and as HTML. Raises
    what `load_state` raises, ArgError for other things than these, PromptError for texts that the model cannot read.
    """
    if model is not None:
        check_model("model", model)
    elif texts is not None:
        raise ArgError("texts: they are read by a model, and none was given; add model=")
    texts = None if texts is None else listed_texts(texts)
    (one, path_a), (two, path_b) = _open("a", a, model), _open("b", b, model)
    shape, other = one.wkv.shape, two.wkv.shape
    alike, crossed = shape == other, (*shape[:2], shape[3], shape[2]) == tuple(other)
    plain = nearest(one, two) if alike else None
    turned = nearest(one, two, turned=True) if crossed else None
    sizes = {"norm_a": frobenius(one), "norm_b": frobenius(two)}
    totals = {name: float(size.norm()) for name, size in sizes.items()}
    findings = same_files(path_a, path_b) + same_kind(one, two) + related(plain, turned, **totals)
    heads = pd.DataFrame(columns=list(COLUMNS), dtype=float)
    if plain is not None:
        heads = distances(one, two, RANK)
        for at, (name, size) in enumerate(sizes.items(), start=2):
            heads.insert(at, name, size.flatten().numpy())
        apart = math.sqrt((heads["frobenius"] ** 2).sum(skipna=False))
        totals |= {"distance": apart, "relative": apart / totals["norm_a"] if totals["norm_a"] else math.inf}
        totals |= plain._asdict()
        findings += spliced(heads)
    findings += shifted(one, two)
    if model is not None:
        heads, read, said = _read(model, texts, one, two, heads)
        totals, findings = totals | read, findings + said
    layers = _layers(one, two, heads)
    return Difference(_about(one, path_a), _about(two, path_b), tuple(findings), totals, layers, heads)


def _open(name: str, source: Any, model: Model | None) -> tuple[State, Path | None]:
    if isinstance(source, State):
        return source, None
    if not isinstance(source, (str, os.PathLike)):
        raise ArgError(f"{name}: need a State or a path, got {show(type(source).__name__)}")
    path = fetch(source)
    try:
        return load_state(path, model), path
    except MismatchError:
        if model is None:
            raise
    return load_state(path), path


def _about(state: State, path: Path | None) -> dict[str, Any]:
    """Return what a state is, ready for JSON; bytes are those of the file, or of the matrices where there is none."""
    shape = dict(zip("LHVK", state.wkv.shape, strict=True))
    size = state.wkv.nbytes if path is None else os.stat(path).st_size
    return {"file": "" if path is None else path.name, "bytes": size, **shape, "card": state.card.to_dict()}


def _layers(a: State, b: State, heads: pd.DataFrame) -> pd.DataFrame:
    table = norms(a, per="layer").merge(norms(b, per="layer"), on="layer", how="outer", suffixes=("_a", "_b"))
    squares = heads["frobenius"] ** 2
    apart = squares.groupby(heads["layer"]).agg(lambda some: some.sum(skipna=False)) ** 0.5
    return table.assign(distance=table["layer"].map(apart).astype(float))


def _read(
    model: Model, texts: Iterable[Text] | None, a: State, b: State, heads: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, float], list[str]]:
    """Return heads and totals with the read-outs in them, or why there are none."""
    try:
        check_fits(a, model)
        check_fits(b, model)
        rows, _ = encode_texts(model, texts, get_template("world"))
    except MismatchError as error:
        return heads, {}, [f"the read-outs are not compared: {error}"]
    except PromptError as error:
        if texts is not None:
            raise
        return heads, {}, [f"the read-outs are not compared: {error}"]
    moments = receptance_moments(model, [prompt + wanted for prompt, wanted in rows])
    found = readouts(moments, a, b)
    columns = {name: column.flatten().numpy() for name, column in readout_columns(found).items()}
    named = {name if name == "readout" else f"readout_{name}": column for name, column in columns.items()}
    size_a, size_b, apart = (float(found[name].norm()) for name in ("a", "b", "apart"))
    product = size_a * size_b
    totals = {"tokens": moments.tokens, "readout_a": size_a, "readout_b": size_b, "readout": apart}
    totals["readout_relative"] = apart / size_a if size_a else math.inf
    totals["readout_cosine"] = float(found["dot"].sum()) / product if product else math.nan
    return heads.assign(**named), totals, []
