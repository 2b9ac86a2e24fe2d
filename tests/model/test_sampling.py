"""Sampling: every setting against its definition or PyPI's `rwkv`, and every argument out of range."""

import math
import types

import numpy as np
import pytest
import torch

from rwkvlab.errors import ArgError, NonFiniteError
from rwkvlab.model.sampling import adjusted, candidates, check_sampling, choose, draw
from rwkvlab.model.vocab import VocabTokenizer

TOKENS = {1: b"a", 2: b"b", 3: b"ab", 4: b"c"}
MODEL = types.SimpleNamespace(tokenizer=VocabTokenizer("v", TOKENS), dims=types.SimpleNamespace(vocab=600))


def settings(**changes):
    return check_sampling(MODEL, **{"top_p": 1.0, "seed": 0, **changes})


def probabilities(logits, sampling):
    ids, p = candidates(logits, sampling)
    assert (ids.diff(dim=-1) > 0).all()
    return torch.zeros(logits.shape, dtype=torch.float64).scatter(-1, ids, p)


def some_logits(rows=3, vocab=600, seed=0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("top_k", [0, 1, 7, 600, 10_000])
@pytest.mark.parametrize("top_p", [0.0, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_probabilities_are_those_of_the_rwkv_package(temperature, top_p, top_k, monkeypatch):
    utils = pytest.importorskip("rwkv.utils")
    seen = []
    monkeypatch.setattr(np.random, "choice", lambda a, p: seen.append(p.copy()) or 0)
    logits = some_logits()
    for row in logits:
        utils.PIPELINE.sample_logits(None, row, temperature=temperature, top_p=top_p, top_k=top_k)
    ours = probabilities(logits, settings(temperature=temperature, top_p=top_p, top_k=top_k))
    assert torch.equal(ours > 0, torch.tensor(np.array(seen)) > 0)
    torch.testing.assert_close(ours, torch.tensor(np.array(seen)).double(), rtol=1e-4, atol=1e-7)


def test_nothing_is_cut_at_top_p_one():
    assert (probabilities(some_logits(), settings()) > 0).all()


def test_a_flat_distribution_is_cut_beyond_the_first_block():
    logits = torch.zeros(2, 10_000) + torch.arange(10_000) * 1e-6
    logits[1, 3000:6000] += 9.0  # the rows need different numbers of candidates
    kept = (probabilities(logits, settings(top_p=0.9)) > 0).sum(-1).tolist()
    assert kept == [pytest.approx(9000, abs=60), pytest.approx(2700, abs=30)]


def test_equals_of_the_last_kept_stay_too():
    logits = torch.zeros(1, 9000)
    logits[0, 5] = 1.0
    for setting in ({"top_p": 0.1}, {"top_k": 2}, {"top_k": 300}):
        assert int((probabilities(logits, settings(**setting)) > 0).sum()) == 9000
    assert int((probabilities(logits, settings(top_k=1)) > 0).sum()) == 1


def test_greedy_takes_the_largest_and_the_first_of_equals():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [5.0, 2.0, 2.0, 1.0]])
    assert choose(logits, settings(temperature=0), []) == [1, 0]


def test_penalties_are_taken_from_generated_tokens_by_count():
    logits = torch.zeros(2, 600)
    out = adjusted(logits, [{3: 1, 7: 4}, {}], settings(presence=0.5, frequency=0.25))
    assert out[0, 3] == -0.75
    assert out[0, 7] == -1.5
    assert int((out != 0).sum()) == 2
    assert not logits.any()


def test_banned_tokens_and_ids_without_text_are_never_drawn():
    sampling = settings(ban=[0, "ab", 5])
    assert sampling.ban == (0, 3, 5)
    out = adjusted(torch.zeros(1, 8), [{}], sampling, [7])
    assert torch.isneginf(out[0]).nonzero().flatten().tolist() == [0, 3, 5, 7]


def test_one_string_and_one_id_may_be_banned_without_a_list():
    assert settings(ban="c").ban == (4,)
    assert settings(ban=9).ban == (9,)
    assert settings(stop="ab").stop == ("ab",)


def test_a_string_of_several_tokens_cannot_be_banned():
    with pytest.raises(ArgError, match=r"ban: 'abc' is 2 tokens"):
        settings(ban=["abc"])


def test_banning_everything_is_refused():
    with pytest.raises(ArgError, match="no token is left"):
        adjusted(torch.zeros(1, 3), [{}], settings(ban=[0, 1, 2]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits_are_an_error_with_row_and_step(bad):
    logits = torch.zeros(2, 5)
    logits[1, 3] = bad
    with pytest.raises(NonFiniteError, match="row 1 for token 7"):
        adjusted(logits, [{}, {}], settings(), (), 7)
    with pytest.raises(NonFiniteError):
        adjusted(torch.full((1, 5), -math.inf), [{}], settings())


def test_single_tokens_at_minus_infinity_are_just_impossible():
    logits = torch.zeros(1, 5)
    logits[0, 2] = -math.inf
    assert probabilities(adjusted(logits, [{}], settings()), settings())[0].tolist() == [0.25, 0.25, 0, 0.25, 0.25]


def test_draws_follow_the_probabilities():
    p = torch.tensor([[0.0, 0.5, 0.0, 0.2, 0.3, 0.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw(torch.arange(6)[None], p, [generator])[0] for _ in range(4000)], minlength=6)
    assert counts[[0, 2, 5]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(counts / 4000, p[0], atol=0.03)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.5, 3), (math.nextafter(1.0, 0.0), 4), (1.0, 4)])
def test_the_ends_of_the_range_never_draw_an_impossible_token(uniform, token, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, uniform, dtype=torch.float64))
    p = torch.tensor([[0.0, 0.5, 0.0, 0.2, 0.3, 0.0]], dtype=torch.float64)
    assert draw(torch.arange(6)[None], p, [torch.Generator()]) == [token]


def test_a_row_draws_the_same_whatever_stands_beside_it():
    ids, p = candidates(some_logits(4), settings(top_p=0.99))
    alone = [draw(ids[i : i + 1], p[i : i + 1], [torch.Generator().manual_seed(i)])[0] for i in range(4)]
    assert draw(ids, p, [torch.Generator().manual_seed(i) for i in range(4)]) == alone


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": -0.1},
        {"temperature": "1"},
        {"top_p": 1.1},
        {"top_p": -0.1},
        {"top_p": math.nan},
        {"top_k": -1},
        {"top_k": 2.0},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"presence": math.inf},
        {"frequency": math.nan},
        {"seed": -1},
        {"seed": 1.0},
        {"stop": ""},
        {"stop": ["a", ""]},
        {"stop": [1]},
        {"stop": 5},
        {"ban": None},
        {"seed": "3"},
        {"ban": [600]},
        {"ban": [-1]},
        {"ban": [1.0]},
        {"ban": [None]},
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(bad):
    with pytest.raises(ArgError, match=f"{next(iter(bad))}: need"):
        settings(**bad)


def test_a_fresh_seed_is_drawn_and_told():
    seeds = {check_sampling(MODEL).seed for _ in range(5)}
    assert len(seeds) == 5


def test_a_tiny_temperature_is_greedy():
    logits = torch.tensor([[0.5, 3.0, 2.9, -1.0]])
    for top_p in (1.0, 0.9):
        for temperature in (1e-40, 1e-310):
            assert choose(logits, settings(temperature=temperature, top_p=top_p), [torch.Generator()]) == [1]
