"""A checkpoint streams to its place: the peak of memory stays close to the weights themselves."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "load_memory.py"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "container"), [("auto", "safetensors"), ("auto", "pth"), ("fp32", "pth")])
def test_the_peak_is_the_weights_and_little_more(dtype, container):
    spec = importlib.util.spec_from_file_location("load_memory", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    weights, largest, peak = script.measure("small", dtype, container)
    assert weights / 2 < peak <= weights + largest + 200 * 10**6
