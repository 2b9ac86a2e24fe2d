"""Recording CUDA graphs: one at a time in a process, on a stream of the right device, and back on the one before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_ONE = threading.Lock()  # PyTorch records one graph at a time


@contextmanager
def recorded(graph: torch.cuda.CUDAGraph, pool: Any, device: torch.device) -> Iterator[None]:
    """Record what is launched on `device` into a graph that works in `pool` (None: one of its own).

    Other threads may allocate and launch meanwhile, and wait with recordings of their own. Raises what PyTorch raises.
    """
    with (
        _ONE,
        torch.cuda.device(device),
        torch.cuda.stream(torch.cuda.current_stream(device)),  # back to it after an error, too
        # PyTorch's own stream for this would be on whichever device came first
        torch.cuda.graph(
            graph, pool=pool, stream=_stream(torch.cuda.current_device()), capture_error_mode="thread_local"
        ),
    ):
        yield


@cache
def _stream(index: int) -> torch.cuda.Stream:
    """The stream of all recordings on a device: graphs that share a pool want the same one."""
    return torch.cuda.Stream(index)
