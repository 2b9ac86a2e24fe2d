"""A checkpoint streams to its place: the peak of memory stays close to the weights themselves."""

import subprocess
import sys

import pytest
import torch

from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims

DIMS = Dims("x060", L=6, H=16, C=1024, K=64, V=64, ffn=3584, vocab=65536)
# VmHWM, not ru_maxrss: a child inherits the latter from its parent
MEASURE = """
import sys, rwkvlab as lab
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
model = lab.load_model(sys.argv[1], device="cpu", dtype=sys.argv[2])
print(peak() - before, model.dtype)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "width"), [("auto", 2), ("fp32", 4)])
def test_the_peak_is_the_weights_and_little_more(tmp_path, dtype, width):
    weights = {key: x.bfloat16() for key, x in random_weights(DIMS).items()}
    path = tmp_path / "model.pth"
    torch.save(weights, path)
    size = sum(x.numel() for x in weights.values()) * width
    largest = max(x.numel() for x in weights.values()) * (width + 2 if width > 2 else 2)
    out = subprocess.run([sys.executable, "-c", MEASURE, path, dtype], stdout=subprocess.PIPE, text=True, check=True)
    peak = int(out.stdout.split()[0])
    print(f"weights {size / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB")
    assert size / 2 < peak <= size + largest + 200 * 10**6
