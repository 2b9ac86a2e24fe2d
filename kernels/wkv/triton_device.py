"""What the Triton launchers ask of the device they launch on: its shared memory and its multiprocessors."""

from functools import cache

import torch
import triton
from triton.runtime import driver


def shared_memory(device: torch.device | None = None) -> int:
    """Bytes a program may use on a device (or the current one): 232448 on an H100, 101376 on consumer cards;
    interpreted, all."""
    if triton.knobs.runtime.interpret:
        return 1 << 30
    return _of(driver.active.get_current_device() if device is None or device.index is None else device.index)


@cache
def _of(device: int) -> int:
    return driver.active.utils.get_device_properties(device)["max_shared_mem"]


@cache
def multiprocessors(device: torch.device) -> int:
    """Those of a CUDA device; four where the kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
