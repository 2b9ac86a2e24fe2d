"""On a CPU the models are at least as fast as PyPI's `rwkv`: decoding 1x, prefill of 512 tokens 1.7x."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cpu_model.py"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_decoding_and_prefill_beside_the_official_package():
    best = {"decode": 0.0, "prefill": 0.0}
    for _ in range(3):  # a busy machine gets a second and a third chance
        out = subprocess.run([sys.executable, SCRIPT], stdout=subprocess.PIPE, text=True, check=True).stdout
        print(out)
        for name in best:
            ratio, error = re.search(rf"^{name}.* ([0-9.]+)x +([0-9.e+-]+)$", out, re.MULTILINE).groups()
            assert float(error) < 1e-4
            best[name] = max(best[name], float(ratio))
        if best["decode"] >= 1.0 and best["prefill"] >= 1.7:
            return
    pytest.fail(f"ratios {best}, need 1.0 and 1.7")
