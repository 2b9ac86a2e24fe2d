"""Tune a state on a CUDA GPU at official RWKV-7 geometries with random bf16 weights: peak memory, tokens a second.

Run: .venv/bin/python tests/benchmarks/gpu_tuning.py [--sizes 0.1B 1.5B] [--tokens 1024] [--steps 12]
Beside ours the same step with the WKV operator of fla (flash-linear-attention), where that is installed: the first time
compiles and tunes fla's kernels. Each twice: as `lab.tune` runs, replayed from CUDA graphs, and launched kernel by
kernel, as PyTorch programs ordinarily are. Times are of `lab.tune` itself, its reports included: the median step after
the first three. A row reads one text of --tokens tokens, all of which count. Memory is what torch had allocated at
most, the weights included, and what it had reserved; the losses of the last step stand beside the times.
"""

import argparse
import importlib.util
import random
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch

import rwkvlab as lab
from rwkvlab.model import fused, fused_back, rwkv7
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.tuning.graphed import GraphedPass
from rwkvlab.shapes import Dims

RANKS = {"0.1B": {"w": 64, "a": 64, "v": 32, "g": 128}, "1.5B": {"w": 96, "a": 96, "v": 64, "g": 256}}
SIZES = {
    "0.1B": (Dims("x070", L=12, H=12, C=768, K=64, V=64, ffn=3072, vocab=65536), RANKS["0.1B"]),
    "1.5B": (Dims("x070", L=24, H=32, C=2048, K=64, V=64, ffn=8192, vocab=65536), RANKS["1.5B"]),
}
SETTINGS = {
    "fla": {},
    "fla, bounded gate": {"lower_bound": -0.606531, "chunk_size": 64, "disable_recompute": True},
}


def made(size):
    """A model of random bf16 weights, loaded from a file as everyone's are."""
    table = random_weights(*SIZES[size], device="cuda")
    for key, weight in table.items():
        table[key] = weight.to("cpu", torch.bfloat16)
    del weight
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save(table, path)
        del table
        return lab.load_model(path, tokenizer="bytes")


def texts(count, tokens):
    rng = random.Random(0)
    return ["".join(rng.choices("etaoin shrdlu", k=tokens)) for _ in range(count)]


def fla_operator(options):
    from fla.ops.rwkv7 import chunk_rwkv7

    def operator(r, w, k, v, a, b, s0, backend=None):
        s = s0.mT.contiguous()
        y, s = chunk_rwkv7(r, w, k, v, a, b, initial_state=s, output_final_state=True, **options)
        return y, s.mT

    return operator


def measured(model, examples, steps, batch):
    """Tokens a second, peak GB allocated and reserved, and the last loss."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    times, losses = [time.perf_counter()], []

    def note(step):
        times.append(time.perf_counter())
        losses.append(step.loss)

    lab.tune(model, examples, steps=steps, batch=batch, lr=1e-3, on_step=note)
    each = [b - a for a, b in pairwise(times)][3:]
    count = batch * len(model.encode(examples[0]))
    peak = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return count / statistics.median(each), *(x / 1e9 for x in peak), losses[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--tokens", type=int, default=1024, help="of a text")
    parser.add_argument("--batch", type=int, default=1, help="texts a step")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__)
    for size in options.sizes:
        model = made(size)
        weights, needed = torch.cuda.memory_allocated(), lab.tuning_memory(model, options.batch, options.tokens)
        print(
            f"{size}, ctx {options.tokens}, batch {options.batch}; allocated before {weights / 1e9:.2f} GB, "
            f"estimated in all {(weights + needed) / 1e9:.2f}"
        )
        examples = texts(options.batch * 2, options.tokens)
        rows = [("ours", None)]
        if importlib.util.find_spec("fla"):
            rows += SETTINGS.items()
        for name, setting in rows:
            operator = rwkv7.wkv7 if setting is None else fla_operator(setting)
            for graphs in (True, False):
                recorded = GraphedPass._recorded if graphs else lambda *_: None
                with (
                    patch.object(rwkv7, "wkv7", operator),
                    patch.object(fused, "wkv7", operator),  # the first of the two passes of a layer
                    patch.object(fused_back, "wkv7", operator),  # the second, and the way back
                    patch.object(GraphedPass, "_recorded", recorded),
                ):
                    pace, peak, reserved, loss = measured(model, examples, options.steps, options.batch)
                print(
                    f"  {name:<18} {'graphs' if graphs else 'launched':<8} {pace:>9,.0f} tokens/s   {peak:.2f} GB "
                    f"allocated, {reserved:.2f} reserved   loss {loss:.4f}",
                    flush=True,
                )
        del model


if __name__ == "__main__":
    main()
