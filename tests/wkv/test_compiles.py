"""Every Triton kernel compiles for each generation of NVIDIA cards, within its shared memory; no card is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
# KiB a program
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
CASES = {"bf16 K=V=64", "fp32 K=V=64", "bf16 K=V=128"}
KERNELS = {"scan", "gradients", "_forward", "_step", "_mix", "_gates", "_decode_one", "_mix_back", "_gates_back"}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_kernel_compiles_within_the_shared_memory_of_each_card(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    paths = [str(HERE.parents[1] / "kernels"), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, str(HERE / "compile_kernels.py")]
    halves = (["90", "80:1", "100:1"], ["86", "89:1", "120:1"])
    running = [
        subprocess.Popen([*command, *half], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for half in halves
    ]
    lines = []
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err[-3000:]
        lines += [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    for capability in SHARED:
        for case in CASES if capability in (86, 90) else ["bf16 K=V=64"]:
            assert {name for c, k, name, _ in lines if (c, k) == (capability, case)} >= KERNELS
    large = [line for line in lines if line[3] > 1024 * SHARED[line[0]]]
    assert not large, "\n".join(map(str, large))
