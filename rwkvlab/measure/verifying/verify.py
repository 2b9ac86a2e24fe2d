"""Verify: do the user's own files work here? Logits against the official package, a state's effect and orientation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, Cancelled, LoadError, MismatchError, RwkvLabError, show
from rwkvlab.hub import fetch
from rwkvlab.measure.verifying.effects import effects, summary
from rwkvlab.measure.verifying.findings import (
    RANDOM,
    STORED,
    TURNED,
    ZERO,
    Finding,
    Gains,
    Orientation,
    effect,
    size,
    way_round,
)
from rwkvlab.measure.verifying.official import LogitCheck, compare_logits, installed
from rwkvlab.measure.verifying.report import Verification, describe_model, describe_state, versions
from rwkvlab.measure.verifying.texts import Text, choose_form, encode_texts, probe
from rwkvlab.model.containers import open_container
from rwkvlab.model.engine import Model, load_model
from rwkvlab.model.inspect_base import ModelHeader
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.states.files import load_state
from rwkvlab.states.state import State, check_fits
from rwkvlab.tasks.templates import Template


def verify(
    model: Model | str | os.PathLike[str],
    state: State | str | os.PathLike[str] | None = None,
    *,
    texts: Iterable[Text] | None = None,
    template: str | Template = "auto",
    orientation: str | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4, 5),
    official: bool = True,
    device: str | torch.device = "auto",
    tokenizer: Any = None,
) -> Verification:
    """Check a model, and a state on it, by what they do; returns a report.

    The weights: where PyPI's `rwkv` is installed (it is never needed) and model is the path of a .pth (or
    "owner/repo/file"), our logits are compared with those of that package, from zeros and from the state, in a process
    of its own; `official=False` leaves it out. It needs memory for an fp32 copy besides the model.

    The state: the loss of texts from zeros, from the state as stored, transposed, and from random states with its
    singular values (one a seed, three at least). texts are (question, answer) pairs, scored on the answer in `template`
    ("auto": that of the state's card, else "world"), {"prompt": …, "answer": …} as it stands, or plain texts, scored on
    all but their first token; None: 24 short pairs in English and Chinese, so give texts like those that the state was
    tuned on; equal ones count once.
    state is a file, loaded with `orientation` as `load_state` does, or a State. device and tokenizer are those of
    `load_model`, for a path.

    Nothing is changed. Raises as `load_model` and `load_state` do (MismatchError for a state that does not fit),
    PromptError for a text that cannot be read, NonFiniteError with the start, ArgError, and Cancelled after Ctrl-C.
    """
    seeds = [int(check_range("seeds", seed, 0, 2**63 - 1, whole=True)) for seed in check_items("seeds", seeds)]
    if len(set(seeds)) < 3 or len(set(seeds)) < len(seeds):
        raise ArgError(f"seeds: need at least three different ones, got {show(seeds)}")
    path = None if isinstance(model, Model) else fetch(model)
    opened = model if isinstance(model, Model) else _open(path or Path(), state, device, tokenizer)
    mounted = _mounted(state, opened, orientation)
    if mounted is None and texts is not None:
        raise ArgError("texts: they are read from a state; give one")
    form = choose_form(template, mounted)
    pairs, repeats = encode_texts(opened, texts, form) if mounted is not None else ([], 0)
    try:
        with tqdm(total=len(pairs) + bool(official), delay=2, desc="verify", leave=False) as bar:
            kind = f"our own {len(pairs)}" if texts is None else f"{len(pairs) + repeats} given"
            kind += f" ({repeats} repeat others and are left out)" if repeats else ""
            return _report(opened, path, state, mounted, pairs, form, kind, seeds, official, bar)
    except KeyboardInterrupt:
        raise Cancelled("verify: interrupted; nothing is kept, run it again") from None


def _report(
    model: Model, path: Path | None, given: Any, state: State | None, pairs: list[tuple[list[int], list[int]]],
    form: Template, kind: str, seeds: list[int], official: bool, bar: Any,
) -> Verification:  # fmt: skip
    about: dict[str, Any] = {"versions": versions(installed()), "model": describe_model(model, path)}
    findings: list[Finding] = []
    check = LogitCheck(pd.DataFrame(), "logits: not compared: official=False", None)
    if official:
        tokens, probed = probe(model)
        starts: dict[str, State | None] = {"zeros": None} | ({} if state is None else {"the state": state})
        check = compare_logits(model, path, tokens, starts)
        about |= {"compared": f"logits after each of {probed}"} if check.agrees is not None else {}
        bar.update()
    findings.append(Finding(check.sentence, check.agrees is False))
    if state is None and path is not None and _merged(path):
        findings.append(
            Finding("state: the file holds a tuned state too, which was not checked: give it as state= too")
        )
    table = pd.DataFrame()
    way: Orientation = "undecided"
    if state is not None:
        arms = _arms(state, seeds)
        found = effects(model, pairs, arms, bar.update)
        table = summary(found.rows, ZERO)
        about |= describe_state(state)
        about["texts"] = f"{kind}, template {show(form.name)}, {table['tokens'].max()} tokens judged"
        gains = Gains(found.rows)
        way, said = way_round(gains, _other_way(model, given, state))
        norms = state.wkv.detach().flatten(1).norm(dim=1).tolist()
        findings += [_base(state, model), said, effect(gains, way, bool(state.card.base)), size(norms, found.norms)]
    problems = tuple(finding.text for finding in findings if finding.problem)
    doubts = tuple(finding.text for finding in findings if finding.open)
    return Verification(table, check.table, tuple(finding.text for finding in findings), problems, way, about, doubts)


def _open(path: Path, state: Any, device: str | torch.device, tokenizer: Any) -> Model:
    """Load the model; says where model and state were given the wrong way round."""
    try:
        return load_model(path, device=device, tokenizer=tokenizer)
    except LoadError as error:
        swapped = None
        with suppress(RwkvLabError):
            swapped = ModelHeader(state).path.name if isinstance(state, (str, os.PathLike)) else None
        if swapped is None:
            raise
        what = str(error).partition(";")[0]
        raise MismatchError(f"{what}, and {show(swapped)} is one: swap them, the model comes first") from error


def _merged(path: Path) -> bool:
    """Whether a checkpoint holds a tuned state besides the weights."""
    with open_container(path) as file:
        return any(key.endswith(".att.time_state") for key in file.keys())  # noqa: SIM118


def _mounted(state: Any, model: Model, orientation: str | None) -> State | None:
    if isinstance(state, (str, os.PathLike)):
        return load_state(state, model, orientation=orientation)
    if orientation is not None:
        raise ArgError("orientation: only for a state that is given as a file; transposed(state) turns a State")
    if state is None:
        return None
    if not isinstance(state, State):
        raise ArgError(f"state: need a State, the path of a state file or None, got {show(type(state).__name__)}")
    check_fits(state, model)
    return state


def _arms(state: State, seeds: list[int]) -> dict[str, State | None]:
    plain = state.detach().to("cpu")
    _, _, values, keys = plain.wkv.shape
    turned = {TURNED: transposed(plain)} if values == keys else {}
    randoms = {RANDOM.format(seed): random_like(plain, seed) for seed in seeds}
    return {ZERO: None, STORED: plain, **turned, **randoms}


def _other_way(model: Model, given: Any, state: State) -> str:
    """Return how to load the state transposed."""
    if isinstance(given, State):
        return "mount transposed(state), or load its file with the other orientation"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for order in ("KV", "VK"):
            try:
                if not torch.equal(load_state(given, model, orientation=order).wkv, state.wkv):
                    return f"load it with orientation={order!r}"
            except RwkvLabError:
                continue
    return "mount transposed(state)"


def _base(state: State, model: Model) -> Finding:
    if not state.card.base:
        return Finding("base: the state does not say which model it was made on; only its effect can tell")
    return Finding(f"base: the state's card names this model ({model.card.fingerprint[:12]})")
