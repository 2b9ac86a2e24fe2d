"""A random model that reads bytes, for the tests of tuning."""

import pytest

from rwkvlab.model.engine import Model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims


def make_model(arch="x070", seed=0):
    dims = Dims(arch, L=2, H=2, C=16, K=8, V=8, ffn=32, vocab=257)
    ranks = {"w": 4, "a": 4, "v": 4, "g": 4, "maa": 4, "decay": 4}
    return Model(Checkpoint(dims, random_weights(dims, ranks, seed), "5a"[seed] * 64), "random")


@pytest.fixture(scope="module")
def make():
    """make(arch="x070", seed=0) -> a random model of two layers."""
    return make_model


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def pairs():
    return [(f"{i}>", str(i * i)) for i in range(20)]
