"""Shared fixtures; the first lines choose Triton's interpreter, before any kernel module is imported."""

import os
import signal

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# the workers of `make test` share the cores: one thread each, since two threads on a busy core wait for one another
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# a shell starts what is to run in the background with Ctrl-C ignored, and every process below it too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    """The checkpoint of `tiny`."""
    dims = Dims("x070", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    path = tmp_path_factory.mktemp("tiny") / "tiny.pth"
    torch.save(random_weights(dims, {"w": 4, "a": 4, "v": 4, "g": 4}), path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file):
    """A random RWKV-7 of two layers that reads bytes: fast, and never right but by chance."""
    return load_model(tiny_file, tokenizer="bytes")


@pytest.fixture
def random_state(tiny):
    """random_state(name, seed=0) -> a State for `tiny`, not symmetric, without token-shifts."""

    def make(name="", seed=0):
        generator = torch.Generator().manual_seed(seed)
        return State(torch.randn(2, 2, 16, 16, generator=generator), like=tiny).named(name)

    return make
