"""The WKV operators on this machine's CPU: naive against chunked, the error against float64 beside every time.

Run `python kernels/benchmarks/cpu_wkv.py`. Decays are drawn in the models' range; errors are relative RMS of y and of
the last state. The two backends run in turn; a time is the best of the rounds. "+ back" asks for every gradient.
"""

import argparse
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor
from wkv import wkv6, wkv6_step, wkv7, wkv7_step

OPERATORS = {"wkv7": wkv7, "wkv6": wkv6}
SHAPES = {
    "prefill": (1, 512, 12, 64),
    "long": (1, 1024, 12, 64),
    "micro": (64, 48, 4, 16),
}


def draw(name: str, B: int, T: int, H: int, N: int) -> list[Tensor]:
    """Inputs in float32 with the log decays of trained models, and a non-zero start."""
    g = torch.Generator().manual_seed(0)
    r, k, key, gate, rate, v = (torch.randn(B, T, H, N, generator=g) for _ in range(6))
    s0 = torch.randn(B, H, N, N, generator=g)
    if name == "wkv7":
        kk = torch.nn.functional.normalize(key, dim=-1)
        return [r, -0.606531 * (2 * gate - 2).sigmoid(), k, v, -kk, kk * rate.sigmoid(), s0]
    return [r, -(gate - 2).exp(), k, v, torch.randn(H, N, generator=g), s0]


def forward(name: str, inputs: list[Tensor], backend: str) -> Callable[[], object]:
    """A call of the operator without gradients."""

    def call() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return OPERATORS[name](*inputs, backend=backend)

    return call


def both_ways(name: str, inputs: list[Tensor], backend: str) -> Callable[[], object]:
    """A call of the operator and of its gradient in every input."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(inputs[i].shape, generator=g) for i in (3, -1)]  # of y and s

    def call() -> tuple[Tensor, ...]:
        return torch.autograd.grad(OPERATORS[name](*inputs, backend=backend), inputs, weights)

    return call


def best_times(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """The best time of each call in ms; the calls take turns, so that a slow minute falls on all of them."""
    times = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            begin = perf_counter()
            call()
            times[i] = min(times[i], 1e3 * (perf_counter() - begin))
    return times


def errors(name: str, inputs: list[Tensor], backend: str) -> list[float]:
    """Relative RMS of y and s against the naive operator in float64."""
    with torch.no_grad():
        want = OPERATORS[name](*(x.double() for x in inputs), backend="naive")
        found = OPERATORS[name](*inputs, backend=backend)
    return [float((x.double() - y).norm() / y.norm()) for x, y in zip(found, want, strict=True)]


def step_time(name: str, inputs: list[Tensor], rounds: int) -> float:
    """The best time of one decode step in ms."""
    *timed, s = inputs
    rest = [x[:, 0].contiguous() if x.dim() == 4 else x for x in timed]
    s = s.clone()
    step = wkv7_step if name == "wkv7" else wkv6_step

    def calls() -> None:
        for _ in range(100):
            step(*rest, s)

    return best_times([calls], rounds)[0] / 100


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=[*SHAPES], help="one of the shapes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, float32, best of {options.rounds}, times in ms\n")
    columns = ("operator", "shape", "B,T,H,N", "what", "naive", "chunked", "ratio", "error y", "error s", "naive y")
    widths = (8, 8, 14, 8, 9, 9, 7, 9, 9, 9)
    print(" ".join(c.rjust(n) for c, n in zip(columns, widths, strict=True)))
    for name in OPERATORS:
        for shape, sizes in SHAPES.items():
            if options.only not in (None, shape):
                continue
            inputs = draw(name, *sizes)
            off, off_naive = errors(name, inputs, "chunked"), errors(name, inputs, "naive")
            for what, make in (("forward", forward), ("+ back", both_ways)):
                slow, fast = best_times([make(name, inputs, x) for x in ("naive", "chunked")], options.rounds)
                row = (name, shape, ",".join(map(str, sizes)), what, f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.1f}")
                row += tuple(f"{x:.1e}" for x in (*off, off_naive[0]))
                print(" ".join(c.rjust(n) for c, n in zip(row, widths, strict=True)), flush=True)
        print(f"{name} decode step, B=1, H=12, N=64: {step_time(name, draw(name, 1, 2, 12, 64), 20):.4f} ms")


if __name__ == "__main__":
    main()
