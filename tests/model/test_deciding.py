"""Deciding on the next tokens: waiting once for a GPU changes nothing of what is taken or told."""

import math

import pytest
import torch

from rwkvlab.errors import ArgError, NonFiniteError
from rwkvlab.model.deciding import greedily, next_tokens
from rwkvlab.model.sampling import Sampling


def settings(presence=0.0, frequency=0.0, ban=()):
    return Sampling(10, 0.0, 1.0, 0, presence, frequency, tuple(ban), (), 0)


def some_logits():
    return torch.randn(3, 600, generator=torch.Generator().manual_seed(0)) * 3


def test_with_one_wait_for_the_gpu_greedy_is_the_same():
    logits = some_logits().round()  # equals among them
    counts = [{5: 2, 7: 1}, {}, {int(some_logits()[2].argmax()): 3}]
    for setting in ({}, {"presence": 3.0, "frequency": 1.5}, {"ban": list(range(0, 500, 3))}):
        sampling = settings(**setting)
        want = next_tokens(logits, counts, sampling, [1, 599], [], 0)
        tokens, own = greedily(logits, counts, sampling, [1, 599], 0)
        assert tokens == want[0] and own == pytest.approx(want[1], rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_with_one_wait_broken_logits_and_bans_of_everything_are_told(bad):
    logits = some_logits()
    with pytest.raises(ArgError, match="no token is left"):
        greedily(logits, [{}] * 3, settings(), range(600), 0)
    logits[1, 17] = -math.inf
    greedily(logits, [{}] * 3, settings(), [], 0)
    logits[2, 3] = bad
    with pytest.raises(NonFiniteError, match="logits of row 2 for token 4 are NaN"):
        greedily(logits, [{}] * 3, settings(), [], 4)
    logits[:] = -math.inf
    with pytest.raises(NonFiniteError, match="logits of row 0"):
        greedily(logits, [{}] * 3, settings(), [], 4)
