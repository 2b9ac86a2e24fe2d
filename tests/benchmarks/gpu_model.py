"""Time decoding and prefill on a CUDA GPU at the 1.5B RWKV-7 geometry with random weights, the error beside the speed.

Run: .venv/bin/python tests/benchmarks/gpu_model.py [--dtypes fp16 bf16] [--rows 1 8 64 512] [--tokens 1024 4096]
Errors are relative RMS of the logits against the ordinary pass in fp32 on the same weights; that of the ordinary pass
in 16 bits stands beside. Times are medians of CUDA events around `Model.run`, logits included; the floor is the time to
read the weights once (and to move the fp32 states twice) at the bandwidth of a device copy, measured here.
"""

import argparse
import statistics

import torch

from rwkvlab.model.engine import Model
from rwkvlab.model.parts import Way
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import DTYPES, Dims

GEOMETRY = Dims("x070", L=24, H=32, C=2048, K=64, V=64, ffn=8192, vocab=65536)
RANKS = {"w": 96, "a": 96, "v": 64, "g": 256}
ORDINARY = Way(tap=lambda *_: None)  # what reports on the way takes the ordinary path


def made(dims, ranks, dtype, rounded=None):
    """A model of random weights, of the same numbers in every dtype; rounded: to this one first."""
    table = random_weights(dims, ranks, device="cuda")
    for key in list(table):
        table[key] = table[key].to(rounded or dtype).to(dtype)
    return Model(Checkpoint(dims, table, "0" * 64), "random")


def draw(dims, rows, tokens):
    return torch.randint(0, dims.vocab, (rows, tokens), generator=torch.Generator().manual_seed(rows)).cuda()


def logits(model, ids, way=None):
    """Logits [T-16,B,vocab] of 16 tokens read at once and the others one by one."""
    flow = model.begin([None] * len(ids))
    out = [model.run(ids[:, :16], flow, way=way)]
    out += [model.run(one, flow, way=way) for one in ids[:, 16:].split(1, dim=1)]
    return torch.stack(out)


def error(got, want):
    return float((got - want).norm() / want.norm())


def milliseconds(function, rounds):
    """The median of a call, after three that warm up."""
    times = []
    for _ in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[3:])


def bandwidth():
    """Bytes a second that a device copy reads and writes."""
    x = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    return 2 * len(x) / (milliseconds(lambda: y.copy_(x), 10) / 1e3)


@torch.no_grad()
def measure(dims, ranks, dtype, rows, lengths, rounds=20):
    """Yield lines: (what, milliseconds, tokens a second, share of the floor, peak GiB); first the errors."""
    want = [logits(made(dims, ranks, torch.float32, dtype), draw(dims, n, 24), ORDINARY) for n in (1, 3)]
    torch.cuda.empty_cache()
    model = made(dims, ranks, dtype)
    yield tuple(
        max(error(logits(model, draw(dims, n, 24), way), x) for n, x in zip((1, 3), want, strict=True))
        for way in (None, ORDINARY)
    )
    del want
    torch.cuda.empty_cache()
    speed, size = bandwidth(), dims.L * (4 * dims.C**2 + 2 * dims.C * dims.ffn) + dims.C * dims.vocab
    for n in rows:
        torch.cuda.reset_peak_memory_stats()
        flow, ids = model.begin([None] * n), draw(dims, n, 1)
        ms = milliseconds(lambda flow=flow, ids=ids: model.run(ids, flow), rounds)
        floor = (size * dtype.itemsize + 8 * n * dims.L * dims.H * dims.K * dims.V) / speed * 1e3
        yield f"decode B={n}", ms, n / ms * 1e3, floor / ms, torch.cuda.max_memory_allocated() / 2**30
        del flow
    for count in lengths:
        torch.cuda.reset_peak_memory_stats()
        flow, ids = model.begin([None]), draw(dims, 1, count)
        ms = milliseconds(lambda flow=flow, ids=ids: model.run(ids, flow), max(3, rounds // 3))
        yield f"prefill T={count}", ms, count / ms * 1e3, None, torch.cuda.max_memory_allocated() / 2**30


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="*", default=["fp16", "bf16"], choices=list(DTYPES))
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 8, 64, 512])
    parser.add_argument("--tokens", nargs="*", type=int, default=[1024, 4096])
    options = parser.parse_args()
    print(f"{GEOMETRY}, vocabulary {GEOMETRY.vocab}, {torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name in options.dtypes:
        lines = measure(GEOMETRY, RANKS, DTYPES[name], options.rows, options.tokens)
        ours, ordinary = next(lines)
        print(f"{name}: logit error {ours:.1e}, of the ordinary pass {ordinary:.1e}")
        if not ours <= 1.5 * ordinary:
            raise SystemExit("the error is too large: no times are shown")
        print(f"{'':16}{'ms':>9}{'tok/s':>10}{'floor':>8}{'peak GiB':>10}")
        for what, ms, rate, share, peak in lines:
            print(f"{what:16}{ms:>9.3f}{rate:>10.0f}{'' if share is None else f'{share:.0%}':>8}{peak:>10.1f}")


if __name__ == "__main__":
    main()
