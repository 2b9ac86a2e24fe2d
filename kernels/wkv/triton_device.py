"""What the Triton launchers ask of the device they launch on: how much shared memory a program may have there."""

from functools import cache

import triton
from triton.runtime import driver


def shared_memory() -> int:
    """Bytes a program may use on the current device: 232448 on an H100, 101376 on consumer cards; interpreted, all."""
    return 1 << 30 if triton.knobs.runtime.interpret else _of(driver.active.get_current_device())


@cache
def _of(device: int) -> int:
    return driver.active.utils.get_device_properties(device)["max_shared_mem"]
