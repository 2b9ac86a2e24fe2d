"""Load a random bf16 RWKV-6 checkpoint in a fresh process and print the peak of its memory beside the weights (Linux).

Run: .venv/bin/python tests/benchmarks/load_memory.py [--geometry small|1B6|7B] [--dtype auto|fp32]
7B writes a file of 14 GiB into the temporary folder first and needs 16 GB of memory.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from rwkvlab.model.weights import VERSIONS
from rwkvlab.shapes import Dims

GEOMETRIES = {
    "small": (Dims("x060", L=6, H=16, C=1024, K=64, V=64, ffn=3584, vocab=65536), {"maa": 32, "decay": 64}),
    "1B6": (Dims("x060", L=24, H=32, C=2048, K=64, V=64, ffn=7168, vocab=65536), {"maa": 32, "decay": 64}),
    "7B": (Dims("x060", L=32, H=64, C=4096, K=64, V=64, ffn=14336, vocab=65536), {"maa": 64, "decay": 128}),
}
# VmHWM, not ru_maxrss: a child inherits the latter from its parent
CHILD = """
import sys, rwkvlab as lab
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
model = lab.load_model(sys.argv[1], device="cpu", dtype=sys.argv[2])
print(peak() - before)
"""


def write_checkpoint(path, dims, ranks):
    """Write random weights tensor by tensor, so that the file may be larger than the memory."""
    table = VERSIONS[dims.arch].shapes(dims, ranks)
    header, at = {}, 0
    for key, shape in table.items():
        size = math.prod(shape) * 2
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    noise = torch.empty(2**22).normal_(std=0.02, generator=torch.Generator().manual_seed(0)).bfloat16()
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for shape in table.values():
            cells = math.prod(shape)
            repeated = noise.repeat(-(-cells // len(noise)))[:cells]
            file.write(repeated.view(torch.int16).numpy().tobytes())
    return sum(math.prod(shape) for shape in table.values()), max(math.prod(shape) for shape in table.values())


def write_pth(path, dims, ranks):
    """Write random weights as torch does; needs as much memory as they take."""
    table = VERSIONS[dims.arch].shapes(dims, ranks)
    torch.save({key: torch.empty(shape).normal_(std=0.02).bfloat16() for key, shape in table.items()}, path)
    return sum(math.prod(shape) for shape in table.values()), max(math.prod(shape) for shape in table.values())


def measure(geometry, dtype="auto", container="safetensors"):
    """Return bytes: of the weights in memory, of the largest tensor while it is converted, and the peak above start."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"random.{container}"
        cells, largest = (write_pth if container == "pth" else write_checkpoint)(path, *GEOMETRIES[geometry])
        command = [sys.executable, "-c", CHILD, path, dtype]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    width = 4 if dtype == "fp32" else 2
    return cells * width, largest * (width + 2 if dtype == "fp32" else 2), int(out.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", choices=GEOMETRIES, default="small")
    parser.add_argument("--dtype", choices=("auto", "fp32"), default="auto")
    parser.add_argument("--container", choices=("safetensors", "pth"), default="safetensors")
    options = parser.parse_args()
    weights, _, peak = measure(options.geometry, options.dtype, options.container)
    gib = 2**30
    print(f"{options.geometry}, dtype {options.dtype}: weights {weights / gib:.2f} GiB, peak {peak / gib:.2f} GiB")


if __name__ == "__main__":
    main()
