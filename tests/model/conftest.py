"""Random checkpoints of several geometries, and PyPI's `rwkv` as the oracle."""

import contextlib
import importlib.util
import io
import os
import sys

import pytest
import torch

from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims


def _geometry(arch, L, H, N, ffn, vocab, **ranks):
    return Dims(arch, L=L, H=H, C=H * N, K=N, V=N, ffn=ffn, vocab=vocab), ranks


GEOMETRIES = {
    "v7-N64": _geometry("x070", 2, 2, 64, 512, 97, w=24, a=16, v=8, g=40),
    "v7-N16": _geometry("x070", 3, 5, 16, 176, 50, w=9, a=7, v=5, g=11),
    "v7-N8-L1": _geometry("x070", 1, 3, 8, 96, 31, w=4, a=3, v=2, g=5),
    "v6-N64": _geometry("x060", 2, 2, 64, 448, 97, maa=12, decay=20),
    "v6-N16": _geometry("x060", 3, 5, 16, 256, 50, maa=6, decay=9),
    "v5-N64": _geometry("x052", 2, 2, 64, 448, 97),
    "v5-N16": _geometry("x052", 3, 5, 16, 256, 50),
}


@pytest.fixture(params=list(GEOMETRIES))
def geometry(request):
    """Dims and LoRA ranks of a small model, each version at official and odd head sizes."""
    return GEOMETRIES[request.param]


@pytest.fixture(scope="session")
def geometries():
    return GEOMETRIES


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory):
    """checkpoint_file(dims, ranks) -> (path, weights): a random official-layout checkpoint on disk."""
    made = {}

    def make(dims, ranks, seed=0):
        key = (dims, tuple(sorted(ranks.items())), seed)
        if key not in made:
            path = tmp_path_factory.mktemp("checkpoint") / f"RWKV-{dims.arch}-random-{len(made)}.pth"
            weights = random_weights(dims, ranks, seed)
            torch.save(weights, path)
            made[key] = path, weights
        return made[key]

    return make


@pytest.fixture(scope="session")
def oracle():
    """oracle(path, arch) -> PyPI's RWKV on the CPU in fp32; an environment variable chooses its version."""
    modules = {}

    def load(path, arch):
        newest = arch == "x070"
        if newest not in modules:
            spec = importlib.util.find_spec("rwkv.model")
            os.environ |= {"RWKV_V7_ON": "1" if newest else "0", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}
            spec = importlib.util.spec_from_file_location(f"rwkv_oracle_{newest}", spec.origin)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            with contextlib.redirect_stdout(io.StringIO()):
                spec.loader.exec_module(module)
            modules[newest] = module
        with contextlib.redirect_stdout(io.StringIO()):
            return modules[newest].RWKV(str(path).removesuffix(".pth"), "cpu fp32")

    return load
