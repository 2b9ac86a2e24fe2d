"""rwkvlab env: what this installation runs on, as one block to paste into a bug report, without paths and secrets."""

from __future__ import annotations

import argparse
import os
import platform
import re
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from rwkvlab.cli.texts import as_json
from rwkvlab.errors import printable, show
from rwkvlab.model.memory import free_memory
from rwkvlab.plots.fonts import label

PACKAGES = (
    "rwkvlab",
    "torch",
    "triton",
    "numpy",
    "pandas",
    "matplotlib",
    "huggingface_hub",
    "pyrwkv-tokenizer",
    "rwkv",
)
NOTEBOOK = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget")
# what changes how it runs; of those whose value may be a path or a secret only that they are set is told
TOLD = ("OMP_NUM_THREADS", "TRITON_INTERPRET", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES")
SET = ("HF_ENDPOINT", "HF_HOME", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "PYTHONPATH")
DRIVER, CPUINFO = Path("/proc/driver/nvidia/version"), Path("/proc/cpuinfo")
BUNDLED = Path(str(files("rwkvlab"))) / "bundled"


def add_env(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command and its options."""
    text = "Versions, GPU and driver, CPU, memory and bundled models, as one block for a bug report. No file is named."
    one = commands.add_parser("env", parents=[common], help="versions and GPU, for a bug report", description=text)
    one.add_argument("--json", action="store_true", help="the same as JSON")
    one.set_defaults(run=env_command)


def env_command(arguments: argparse.Namespace, _: list[str]) -> int:
    """Print what is known; what cannot be found out is said in its line."""
    found = environment()
    width = max(map(len, found))
    lines = [f"{name:<{width}}  {text}" for name, text in found.items()]
    print(as_json(found) if arguments.json else printable("\n".join(lines)))
    return 0


def environment() -> dict[str, str]:
    """Return what rwkvlab runs on: names of things and what is known of them, no paths, nothing of the user's."""
    found = {name: _version(name) for name in PACKAGES}
    found |= {"Python": f"{platform.python_version()} ({platform.python_implementation()})"}
    found |= {name: _version(name) for name in NOTEBOOK}
    found["OS"] = _system()
    found |= _gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found["CPU"] = f"{_cpu()}, {cores} cores, {torch.get_num_threads()} threads of torch"
    free = free_memory(torch.device("cpu"))
    found["memory"] = "not known" if free is None else f"{free / 1e9:.3g} GB free"
    found["bundled models"] = ", ".join(_bundled(BUNDLED)) or "none"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["Chinese in plots"] = "yes" if label("文") == "文" else "no font for it is installed"
    settings = [f"{name}={show(os.environ[name], 20)[1:-1]}" for name in TOLD if name in os.environ]
    settings += [f"{name} (set)" for name in SET if os.environ.get(name) or os.environ.get(name.lower())]
    return found | {"settings": ", ".join(settings) or "none"}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = platform.mac_ver()[0]
    parts = [platform.system(), re.sub(r"[^\d.].*", "", platform.release()), platform.machine(), name]
    return ", ".join([" ".join(filter(None, parts[:3])), *filter(None, parts[3:])])


def _gpus() -> dict[str, str]:
    """Return a line for CUDA as torch sees it, and one for each GPU."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    built = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch built without CUDA"
    try:
        driver = re.search(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)", DRIVER.read_text("utf-8", "replace"))
    except OSError:
        driver = None
    text = f"{built}, NVIDIA driver {driver[1] if driver else 'not found'}"
    if not there:
        why = f": {show(said[0].message, 160)[1:-1]}" if said else ""
        return {"GPU": f"none that torch can use ({text}){why}"}
    found = {"CUDA": text}
    for at in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(at)
        size, capability = f"{card.total_memory / 1e9:.3g} GB", f"{card.major}.{card.minor}"
        found[f"GPU {at}"] = f"{show(card.name)[1:-1]}, {size}, compute capability {capability}"
    return found


def _cpu() -> str:
    try:
        name = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text("utf-8", "replace"), re.MULTILINE)
    except OSError:
        name = None
    return show(name[1] if name else platform.processor() or platform.machine())[1:-1]


def _bundled(folder: Path) -> list[str]:
    """Return the names of the models in a folder, each in a folder with its card, and which of them lack a file."""
    found = []
    for card in sorted(folder.glob("*/card.json")):
        name = card.parent.name
        whole = all((card.parent / part).exists() for part in (f"{name}.pth", "vocab.txt", "states"))
        found.append(name if whole else f"{name} (incomplete)")
    return found
