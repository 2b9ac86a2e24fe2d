"""The matrix of the evidence: bits per byte of held-out texts of each source, from the state of each source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rwkvlab.bundled.evidence_arms import RANDOM, Arm, controls_of
from rwkvlab.bundled.evidence_asking import Ask, token_logprobs
from rwkvlab.bundled.mix import source_tag
from rwkvlab.bundled.skills import SKILLS, Skill, windows
from rwkvlab.measure.interval import interval
from rwkvlab.model.engine import Model
from rwkvlab.states.state import State

TOKENS = 256  # of a text, at most
HEAD = 100  # tokens that are counted apart
SOURCES = tuple(skill for skill in SKILLS if skill.family == "source")
NEAR = (("tang", "song"), ("austen", "shakespeare"))
PARTS = {"all": (0, TOKENS), "first 100": (0, HEAD), "after 100": (HEAD, TOKENS)}
UNITS = ["task", "arm", "seed", "which", "window", "part"]


def text_arms(
    source: Skill, states: Mapping[tuple[Skill, int], State], seeds: Sequence[int], draws: int = RANDOM
) -> Iterator[Arm]:
    """Yield every arm of a text: no state, its tag, the state of each source, and controls made of its own state."""
    yield Arm("no state")
    yield Arm("tag")
    for seed in seeds:
        for other in SOURCES:
            yield Arm("state", seed, other.name, states[other, seed])
        yield from controls_of(states[source, seed], seed, draws if seed == seeds[0] else 0)


def run_texts(
    model: Model,
    states: Mapping[tuple[Skill, int], State],
    seeds: Sequence[int],
    data: Path,
    *,
    n: int = 100,
    draws: int = RANDOM,
) -> pd.DataFrame:
    """Read held-out texts in every arm; returns one row a (task: the source, arm, seed, which, window, part).

    A text has up to 256 tokens, and its first one is not counted: nothing but its arm stands before it. part: "all",
    "first 100" (tokens) or "after 100". Columns also bits and bytes, of the tokens that are counted.
    """
    asks: list[Ask] = []
    about: list[tuple[str, Arm, int]] = []
    for source in SOURCES:
        texts = [tuple(model.encode(text)[:TOKENS]) for text in windows(data, source.name, n)]
        tag = tuple(model.encode(source_tag(source.name)))
        for arm in text_arms(source, states, seeds, draws):
            before = tag if arm.name == "tag" else ()
            asks += [Ask(ids, (), arm.state, before) for ids in texts]
            about += [(source.name, arm, at) for at in range(len(texts))]
    bytes_of = model.tokenizer.bytes_of  # type: ignore[attr-defined]
    sizes = {ids: np.array([len(bytes_of(token)) for token in ids]) for ids in {one.prompt for one in asks}}
    rows: list[tuple[Any, ...]] = []
    for one, (name, arm, at), logprobs in zip(asks, about, token_logprobs(model, asks), strict=True):
        for part, (low, high) in PARTS.items():
            low = max(low, 1)
            bits = -logprobs[low - 1 : high - 1].sum() / np.log(2)
            counted = int(sizes[one.prompt][low:high].sum())  # type: ignore[index]
            if counted:
                rows.append((name, arm.name, arm.seed, arm.which, at, part, bits, counted))
    return pd.DataFrame(rows, columns=[*UNITS, "bits", "bytes"])


def text_table(rows: pd.DataFrame, *, by_seed: bool) -> pd.DataFrame:
    """Return bits per byte (all bits over all bytes) with its 95 % interval, one row a (part, task, arm, which).

    Over seeds and windows, or with by_seed a row a seed without intervals. The draws of "random" are its seeds.
    """
    found = []
    keys = ["part", "task", "arm", *(["seed"] if by_seed else []), "which"]
    draws = rows["arm"] == "random"
    merged = rows.assign(seed=rows["seed"].where(~draws, rows["which"].where(draws, "-1").astype(int)))
    merged["which"] = merged["which"].mask(draws, "")
    for key, part in merged.groupby(keys, sort=False):
        bits, size = (part.pivot(index="seed", columns="window", values=name).to_numpy() for name in ("bits", "bytes"))
        ratio = bits.sum() / size.sum()
        row = dict(zip(keys, key, strict=True)) | {"windows": bits.shape[1], "bits_per_byte": ratio}
        if not by_seed:
            low, high = interval(ratio + (bits - ratio * size) / size.mean())
            row |= {"low": low, "high": high}
        found.append(row)
    return pd.DataFrame(found)


def margins(rows: pd.DataFrame, part: str = "all") -> pd.DataFrame:
    """Return by how many bits per byte each text is worse from every other state than from its own, with intervals.

    One row a (task, other): "no state", or another source; paired over windows and seeds. seeds: of how many the
    margin is above zero. near: whether the two are the sources that are most alike.
    """
    rows = rows[rows["part"] == part]
    found = []
    for task, some in rows.groupby("task", sort=False):
        own = _grid(some[(some["arm"] == "state") & (some["which"] == task)])
        sizes = some[some["arm"] == "no state"].sort_values("window")["bytes"].to_numpy(dtype=float)
        others = {str(name): other for name, other in some[some["arm"] == "state"].groupby("which", sort=False)}
        for other, theirs in {"no state": some[some["arm"] == "no state"], **others}.items():
            if other == task:
                continue
            worse = (_grid(theirs) - own) / sizes.mean()  # [S,N]
            low, high = interval(worse)
            near = any({task, other} == set(pair) for pair in NEAR)
            head = {"task": task, "other": other, "near": near, "margin": float(worse.mean()), "low": low, "high": high}
            found.append(head | {"seeds": int((worse.mean(1) > 0).sum()), "of": len(worse)})
    return pd.DataFrame(found)


def _grid(rows: pd.DataFrame) -> np.ndarray:
    return rows.pivot(index="seed", columns="window", values="bits").to_numpy()
