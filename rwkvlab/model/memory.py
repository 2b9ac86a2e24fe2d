"""Memory: how much is free where a model is to be, and whether its weights have room there, before they are read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from rwkvlab.errors import RoomError
from rwkvlab.shapes import DTYPES

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# what needs so many times what a CPU has free cannot fit, whatever the system's guess of it is off by
HOPELESS = 1.5


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a CUDA device, with what torch keeps for later, or of this machine; None: unknown.

    In a container it is what the container may still take, where that is less.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = _kilobytes("MemAvailable") if device.type == "cpu" else None
    if free is None:
        return None
    try:  # cgroup v2; files that were read and are no longer in use can be dropped
        limit, used = (int((CGROUP / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        dropped = re.search(r"^inactive_file (\d+)$", (CGROUP / "memory.stat").read_text("ascii"), re.MULTILINE)
    except (OSError, ValueError):  # "max": no limit
        return free
    return max(0, min(free, limit - used + (int(dropped[1]) if dropped else 0)))


def check_room(name: str, numbers: Mapping[str, int], kept: Mapping[str, torch.dtype], device: torch.device) -> int:
    """Return the bytes of the weights: `numbers` of each are `kept` in a dtype. Ask for them before they are read.

    Raises RoomError, which says what is needed, what is free and which dtype would do, where they cannot fit; warns
    where they hardly do.
    """
    need = sum(count * kept[key].itemsize for key, count in numbers.items())
    free = free_memory(device)
    if free is None or need <= free:
        return need
    dtype = max(kept.values(), key=lambda one: sum(numbers[key] for key in numbers if kept[key] == one))
    short = next((word for word, one in DTYPES.items() if one == dtype), str(dtype))
    text = f"{name}: its weights need {need / 1e9:.3g} GB as {short}, {free / 1e9:.3g} GB are free on {device.type}"
    advice = "; ".join([*_advice(need, free, dtype, device), "free some memory, or take a smaller model"])
    swap = (_kilobytes("SwapFree") or 0) if device.type == "cpu" else 0
    if device.type != "cpu" or need > HOPELESS * free + swap:
        raise RoomError(f"{text}; {advice}")
    warnings.warn(f"{text}: they may not fit; {advice}", stacklevel=4)
    return need


def _advice(need: int, free: int, dtype: torch.dtype, device: torch.device) -> list[str]:
    """Return other ways to load the model that would fit."""
    found = []
    if dtype == torch.float32 and need / 2 <= free:
        found.append(f'load it with dtype="bf16" ({need / 2e9:.3g} GB)')
    if device.type != "cpu" and need <= (free_memory(torch.device("cpu")) or 0):
        found.append('load it with device="cpu"')
    return found


def _kilobytes(name: str) -> int | None:
    """Return a line of /proc/meminfo in bytes, None where there is none."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", MEMINFO.read_text("ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return None if found is None else int(found[1]) * 1024
