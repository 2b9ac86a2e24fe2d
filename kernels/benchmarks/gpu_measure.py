"""How the GPU benchmark measures: errors before times, memory beside the results, a first call in a fresh process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from gpu_cases import error, truth, weights_of
from gpu_peers import Inputs, Way
from torch import Tensor
from triton.testing import do_bench


@dataclass
class Row:
    """One line of a table; NaN where nothing was measured, and no time where an error is over its bound."""

    operator: str
    shape: tuple[int, int, int]
    way: str
    what: str
    ms: float = float("nan")
    floor_ms: float = float("nan")
    extra_mb: float = float("nan")
    error_y: float = float("nan")
    error_state: float = float("nan")
    error_gradients: float = float("nan")
    error_s0: float = float("nan")
    note: str = ""


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a device copy."""
    x = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    z = torch.empty_like(x)
    return 2 * x.nbytes / (1e-3 * do_bench(lambda: z.copy_(x), return_mode="median"))


def errors(name: str, way: Way, inputs: Inputs, row: Row) -> bool:
    """Fill the errors of a row; whether all are within their bounds (NaN never is)."""
    given = way.prepare(inputs)
    ours = way.restore(given)  # what the way was given, after its own rounding
    backward = way.backward and row.what != "forward"
    weights = weights_of(inputs) if backward else None
    want, want_gradients = truth(name, ours, weights)
    given = [x.detach().requires_grad_(backward) for x in given]
    with torch.set_grad_enabled(backward):
        y, s = way.call(*given)
    turned = way.restore([*given[:-1], s.detach()])[-1]
    row.error_y, row.error_state = error(y, want[0]), error(turned, want[1])
    good = row.error_y <= way.bounds[0] and row.error_state <= way.bounds[2]
    if weights is not None:
        dy, ds = weights[0], way.prepare([*inputs[:-1], weights[1]])[-1]
        found = way.restore(list(torch.autograd.grad([y, s], given, [dy, ds])))
        off = [error(x, z) for x, z in zip(found, want_gradients, strict=True)]
        row.error_gradients, row.error_s0 = max(off[:-1], key=lambda e: (e != e, e)), off[-1]
        good = good and row.error_gradients <= way.bounds[1] and row.error_s0 <= way.bounds[2]
    return good


def call_of(way: Way, inputs: Inputs, backward: bool) -> Callable[[], list[Tensor]]:
    """A call that returns all its results: (y, s), and the gradients."""
    given = [x.detach().requires_grad_(backward) for x in way.prepare(inputs)]
    dy, ds = weights_of(inputs)
    ds = way.prepare([*inputs[:-1], ds])[-1]

    def call() -> list[Tensor]:
        with torch.set_grad_enabled(backward):
            outputs = way.call(*given)
        return [*outputs, *torch.autograd.grad(outputs, given, [dy, ds])] if backward else list(outputs)

    return call


def time_and_memory(call: Callable[[], list[Tensor]]) -> tuple[float, float]:
    """Median milliseconds, and MB at the peak beside inputs and results."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = call()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before - sum(x.nbytes for x in results)
    del results
    return do_bench(call, return_mode="median"), extra / 1e6


def graph_time(call: Callable[[int], object], n: int) -> float:
    """Milliseconds a call, of n calls captured in one CUDA graph."""
    call(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(n):
            call(i)
    return do_bench(graph.replay, return_mode="median") / n


FIRST = """
import os, sys, time
sys.path[:0] = PATHS
import torch
from gpu_cases import OPERATORS, draw, weights_of
def both(name, *shape):
    inputs = [x.requires_grad_() for x in draw(name, *shape)]
    torch.autograd.grad(OPERATORS[name](*inputs), inputs, weights_of(inputs))
    torch.cuda.synchronize()
draw("wkv7", 1, 1, 1)
torch.cuda.synchronize()
begin = time.perf_counter()
both(NAME, 1, 1000, 4)
took = time.perf_counter() - begin
kernels = len(os.listdir(os.environ["TRITON_CACHE_DIR"]))
both(NAME, 3, 2048, 32)
both(NAME, 8, 77, 1)
print(took, len(os.listdir(os.environ["TRITON_CACHE_DIR"])) - kernels)
"""


def first_call(name: str) -> tuple[float, int]:
    """Seconds of a first forward and backward in a fresh process with an empty cache, and what other shapes compile."""
    here = os.path.dirname(os.path.abspath(__file__))
    code = FIRST.replace("PATHS", repr([here, os.path.dirname(here)])).replace("NAME", repr(name))
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TRITON_CACHE_DIR": folder}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    seconds, more = out.stdout.split()[-2:]
    return float(seconds), int(more)
