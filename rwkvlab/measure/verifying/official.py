"""Our logits against those of PyPI's `rwkv`, which runs in a process of its own where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rwkvlab.errors import Cancelled, PathError, RwkvLabError, show
from rwkvlab.measure.verifying.official_ours import EXACT, compared, our_logits, way_of
from rwkvlab.model.engine import Model, load_model
from rwkvlab.states.layouts import RUN_TIME
from rwkvlab.states.state import State
from rwkvlab.tensorfile import read_tensors

TIMEOUT = 3600.0  # seconds: a model of 7 B parameters takes minutes on a slow disk
SCRIPT = Path(__file__).with_name("official_run.py")
COLUMNS = ("start", "ours", "largest", "rms", "same_top", "agrees")


class LogitCheck(NamedTuple):
    """A row a (start, dtype that ours ran in), what came of it in a sentence, and whether all agree; None: not known.

    table: start, ours, largest and rms (of the difference, in standard deviations of the official logits), same_top
    (share of tokens after which both think the same next token the likeliest) and agrees.
    """

    table: pd.DataFrame
    sentence: str
    agrees: bool | None


class _Failed(Exception):
    """Why the official package gave no logits, as the end of a sentence."""


def installed() -> str:
    """Return the version of PyPI's `rwkv`, "" where it is not installed; nothing is imported."""
    try:
        spec = importlib.util.find_spec("rwkv")
        return version("rwkv") if spec is not None and spec.origin else ""
    except (ImportError, ValueError, PackageNotFoundError):
        return ""


def compare_logits(
    model: Model, path: Path | None, tokens: Sequence[int], starts: Mapping[str, State | None]
) -> LogitCheck:
    """Compare the logits after each of `tokens` [T], from every start, with those of the official package in fp32.

    path: the .pth that `model` was loaded from, so that the strict reader has accepted it before the package opens it
    (which it does as tensors only). A model that does not run in fp32 on the CPU is loaded a second time in fp32 to
    be compared exactly; that copy is gone before the package starts, so that at most the model and one fp32 copy of it
    are in memory, and nothing is tried where they would not fit. No failure is raised: the sentence tells.

    Where torch is told to multiply fp32 matrices in less (`torch.set_float32_matmul_precision`), that is switched off
    for the exact logits meanwhile, and a model in fp32 elsewhere is judged as "tf32".
    """
    release = installed()
    try:
        reason = _obstacle(model, path, release)
        if path is None or reason:
            raise _Failed(reason)
        ours = {way_of(model): our_logits(model, tokens, starts)}
        if (model.dtype, model.device.type) != (torch.float32, "cpu"):
            exact = load_model(path, device="cpu", dtype="fp32", tokenizer=model._tokenizer)
            ours[way_of(exact)] = our_logits(exact, tokens, starts)
            del exact
        theirs = official_logits(path, model, tokens, list(starts.values()))
    except Cancelled:
        raise
    except (_Failed, RwkvLabError, OSError, RuntimeError, MemoryError) as error:
        said = str(error) if path is None else str(error).replace(show(path), show(path.name))
        if isinstance(error, PathError) or not isinstance(error, (_Failed, RwkvLabError)):
            said = f"{type(error).__name__}, {_without_folders(said)[:200]}"
        return LogitCheck(pd.DataFrame(columns=list(COLUMNS)), f"logits: not compared: {show(said, 300)[1:-1]}", None)
    rows = [
        compared(start, way, got, want)
        for way, logits in ours.items()
        for start, got, want in zip(starts, logits, theirs, strict=True)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return LogitCheck(table, f"logits: {_verdict(table, release)}", bool(table["agrees"].all()))


def _verdict(table: pd.DataFrame, release: str) -> str:
    exact = table["ours"] == EXACT
    text = f"those of rwkv {release} in fp32, {table[exact]['rms'].max():.1g} of their standard deviation apart"
    if not table[exact]["agrees"].all():
        return f"DIFFER from {text}: do not trust answers here, and report this"
    if table["agrees"].all():
        return f"agree with {text}"
    here = table[~exact].iloc[0]["ours"]
    apart = f"{table[~exact]['rms'].max():.2g} apart"
    return f"agree with {text}; but {here}, as it runs here, they are {apart}: report this"


def official_logits(
    path: Path, model: Model, tokens: Sequence[int], starts: Sequence[State | None], timeout: float = TIMEOUT
) -> list[Tensor]:
    """Return the logits [T,vocab] fp32 that the official package gives from every start; raises _Failed."""
    with tempfile.TemporaryDirectory(prefix="rwkvlab-") as name:
        folder = Path(name)
        given = _link(path, folder)
        request = {"model": given, "tokens": list(tokens), "threads": torch.get_num_threads(), "starts": len(starts)}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        for number, start in enumerate(starts):
            state = (start or model.zero()).detach().to("cpu")
            wkv = state.wkv.mT if RUN_TIME[model.dims.arch] == "KV" else state.wkv
            for key, tensor in (("wkv", wkv), ("att", state.att_shift), ("ffn", state.ffn_shift)):
                np.save(folder / f"{key}{number}.npy", tensor.contiguous().numpy())
        _run(folder, model.dims.arch, timeout)
        return [_reply(folder / f"logits{i}.npy", (len(tokens), model.dims.vocab)) for i in range(len(starts))]


def _obstacle(model: Model, path: Path | None, release: str) -> str:
    """Return why nothing can be compared, "" where it can."""
    if not release:
        return "PyPI's rwkv is not installed here; `pip install rwkv` and run this again to have the weights checked"
    if path is None:
        return "a Model does not know its file; give the path of the .pth instead"
    if path.is_dir():
        return "the official package reads .pth files only; give the .pth that this folder was made from"
    with read_tensors(path) as file:
        if file.format != "pth":
            return "the official package reads .pth files only; give the .pth that this file was made from"
        count = sum(math.prod(file.info(key)[1]) for key in file)
    # older versions are held as stored and as fp32 at once
    need = 4 * count + (0 if model.dims.arch == "x070" else path.stat().st_size) + 2**29
    free = _free_memory()
    if free is not None and need > free:
        return f"it needs about {need / 2**30:.1f} GiB of free memory, and {free / 2**30:.1f} GiB are free"
    return ""


def _free_memory() -> int | None:
    """Return the bytes that can be had without swapping, None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None


def _link(path: Path, folder: Path) -> str:
    """Return a path without ".pth" under which the package finds the file, whatever its name is."""
    whole = path.resolve()
    try:
        (folder / "model.pth").symlink_to(whole)
    except OSError:
        if whole.suffix != ".pth":
            raise _Failed("the official package wants a name that ends in .pth; rename the file") from None
        return str(whole.with_suffix(""))
    return str(folder / "model")


def _run(folder: Path, arch: str, timeout: float) -> None:
    """Run the script on a request; its environment alone is changed, and the memory goes back with it."""
    left_out = ("RWKV_", "TORCH_FORCE_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    environment |= {"RWKV_V7_ON": "1" if arch == "x070" else "0", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}
    environment |= {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(SCRIPT), str(folder)], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _Failed(f"the official package took longer than {timeout:g} s") from None
    except OSError as error:
        raise _Failed(f"Python could not be started a second time ({error.strerror})") from None
    if done.returncode < 0:
        raise _Failed(f"the official package was killed by signal {-done.returncode}: is there enough memory?")
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = _without_folders(lines[-1] if lines else "nothing")
        raise _Failed(f"the official package failed; it said {show(said, 160)}")


def _without_folders(text: str) -> str:
    return re.sub(r"[^\s'\"(]*[/\\]", "", text)


def _reply(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        logits = torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):
        raise _Failed("the official package left no logits") from None
    if tuple(logits.shape) != shape or not logits.isfinite().all():
        raise _Failed(f"the official package gave logits {list(logits.shape)} for {list(shape)}, or NaN")
    return logits
