"""The WKV kernels on this machine's GPU beside public ones: errors against float64, times, memory, the floor of bytes.

Run `python kernels/benchmarks/gpu_wkv.py`; fla (flash-linear-attention) and rwkv take part where they are installed.
bf16 inputs, fp32 states, K = V = 64, initial state and its gradient included. Errors are relative RMS against the
chunked form in float64 on what each implementation was given, with fewer tokens where float64 would not fit. No time
is shown for an implementation whose error is over its bound: ours are 0.0025 (y), 0.003 (gradients) and 0.001 (states
and the gradient of s0), those of others 0.006. The status is 1 where an error of ours is over its bound.
"""

import argparse
import csv
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import triton
from gpu_cases import (
    DECODE,
    OPERATORS,
    PREFILL,
    TRAINING,
    bytes_backward,
    bytes_forward,
    draw,
    error,
    shortened,
    truth,
)
from gpu_measure import Row, call_of, copy_bandwidth, errors, first_call, graph_time, time_and_memory
from gpu_peers import Step, Way, steps, ways

HEAD = (
    f"{'operator':<8} {'B,T,H':<12} {'what':<11} {'implementation':<18} {'ms':>8} {'floor':>7} {'%':>5} {'MB':>7}"
    f"  {'y':>7} {'s':>7} {'grads':>7} {'ds0':>7}"
)


def number(x: float, form: str, width: int) -> str:
    """A dash for NaN."""
    return (format(x, form) if x == x else "-").rjust(width)


def show(row: Row) -> None:
    """Print one line of a table."""
    shape = ",".join(map(str, row.shape))
    off = (row.error_y, row.error_state, row.error_gradients, row.error_s0)
    print(
        f"{row.operator:<8} {shape:<12} {row.what:<11} {row.way:<18} {number(row.ms, '.4f', 8)}"
        f" {number(row.floor_ms, '.4f', 7)} {number(100 * row.floor_ms / row.ms, '.1f', 5)}"
        f" {number(row.extra_mb, '.0f', 7)}  {' '.join(number(x, '.1e', 7) for x in off)} {row.note}",
        flush=True,
    )


def over_time(name: str, shape: tuple[int, int, int], way: Way, what: str, bandwidth: float) -> Row:
    """A row of the training and prefill tables."""
    row = Row(name, shape, way.name, what)
    backward = what != "forward"
    try:
        good = errors(name, way, draw(name, *shortened(*shape)), row)
        torch.cuda.empty_cache()
        inputs = draw(name, *shape)
        moved = bytes_forward(inputs) + (bytes_backward(inputs) if backward else 0)
        row.floor_ms = 1e3 * moved / bandwidth
        if good:
            row.ms, row.extra_mb = time_and_memory(call_of(way, inputs, backward))
        else:
            row.note = "error over its bound: not timed"
    except torch.OutOfMemoryError:
        row.note = "out of memory"
    torch.cuda.empty_cache()
    return row


def decoding(name: str, shape: tuple[int, int, int], step: Step, bandwidth: float) -> Row:
    """A row of the decode table: calls in a CUDA graph, over more states than the cache holds."""
    row = Row(name, shape, step.name, "decode")
    *given, s = draw(name, *shape)
    want, _ = truth(name, [*given, s], None)
    if step.turned:
        s = s.mT.contiguous()
    with torch.no_grad():
        y, after = step.call(*given, s.clone())
        row.error_y, row.error_state = error(y, want[0]), error(after.mT if step.turned else after, want[1])
        row.floor_ms = 1e3 * (sum(x.nbytes for x in given) + given[3].nbytes + 2 * s.nbytes) / bandwidth
        if row.error_y <= step.bounds[0] and row.error_state <= step.bounds[2]:
            count = max(4, int(200e6 // s.nbytes))
            states = s.expand(count, *s.shape).contiguous()
            row.ms = graph_time(lambda i: step.call(*given, states[i]), count)
        else:
            row.note = "error over its bound: not timed"
    return row


def tables(chosen: list[str], bandwidth: float, alone: bool) -> list[Row]:
    """Print and return all rows."""
    rows = []

    def add(row: Row) -> None:
        rows.append(row)
        show(row)

    print(HEAD)
    for name in chosen:
        compared = ways(name)[:1] if alone else ways(name)
        cases = [(shape, what) for shape in TRAINING[name] for what in ("forward", "both ways")]
        for shape, what in [*cases, *((shape, "forward") for shape in PREFILL[name])]:
            for way in compared:
                if (way.backward or what == "forward") and not (way.only_one and shape[0] > 1):
                    add(over_time(name, shape, way, what, bandwidth))
        for shape in DECODE:
            for step in steps(name, shape[1])[: 1 if alone else None]:
                add(decoding(name, shape, step, bandwidth))
    return rows


def main() -> int:
    """Measure, print, and write the CSV and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*OPERATORS], help="one operator")
    parser.add_argument("--alone", action="store_true", help="without the chunked form and the public kernels")
    parser.add_argument("--out", type=Path, help="a folder for gpu_wkv.csv and gpu_wkv.png")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_wkv: needs a CUDA GPU; without one, `pytest tests/wkv` runs the kernels in Triton's interpreter")
        return 2
    chosen = [options.only] if options.only else [*OPERATORS]
    bandwidth = copy_bandwidth()
    title = (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, "
        f"copy {bandwidth / 1e12:.2f} TB/s"
    )
    print(title)
    for name in chosen:
        seconds, more = first_call(name)
        print(
            f"{name}: first forward and backward in a fresh process {seconds:.1f} s; other B, T, H compile {more} more"
        )
    rows = tables(chosen, bandwidth, options.alone)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with open(options.out / "gpu_wkv.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, [*asdict(rows[0])])
            writer.writeheader()
            writer.writerows({**asdict(row), "shape": " ".join(map(str, row.shape))} for row in rows)
        from gpu_plot import plot

        plot(rows, options.out / "gpu_wkv.png", title)
    return int(any(row.note.startswith("error") and row.way.startswith("wkv") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
