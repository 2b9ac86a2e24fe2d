"""The norm guard: a state that runs away from the norms of normal running is reported, once, and on its card."""

import warnings

import pytest
import torch

from rwkvlab.model.examples import encode_examples
from rwkvlab.model.tuning import tune
from rwkvlab.model.tuning.norms import NormGuard

PAIRS = [("a>", "bcd"), ("ba>", "x"), ("yes or no?", "yes"), ("q", "rst")]


def test_normal_is_the_largest_norm_after_an_example(model):
    guard = NormGuard(model, encode_examples(model, PAIRS))
    met = [model.read(prompt + answer).wkv.norm(dim=(-2, -1)) for prompt, answer in PAIRS]
    for layer in range(2):
        for head in range(2):
            want = max(float(norms[layer, head]) for norms in met)
            assert float(guard.normal[layer, head]) == pytest.approx(want, rel=1e-4)
    assert guard.multiple(model.zero().wkv) == 0
    state = model.zero().wkv.clone()
    state[1, 0] = 1
    assert guard.multiple(state) == pytest.approx(8 / float(guard.normal[1, 0]), rel=1e-5)


def test_a_state_within_the_norms_is_not_spoken_of(model):
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = tune(model, PAIRS, steps=5, lr=1e-3, on_step=seen.append)
    assert all(0 < step.multiple < 10 for step in seen)
    assert "norm" not in state.card.recipe


def test_a_state_that_runs_away_is_reported_once_with_the_head(model):
    seen = []
    with pytest.warns(UserWarning, match="heads over 10 times the norm of normal running") as caught:
        state = tune(model, PAIRS, steps=30, lr=20.0, on_step=seen.append)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "at step " in str(caught[0].message)
    assert seen[-1].multiple > 10
    guard = NormGuard(model, encode_examples(model, PAIRS))
    assert f"{guard.multiple(state.wkv):.3g} times)" in state.card.recipe
    assert seen[-1].multiple == pytest.approx(guard.multiple(state.wkv), rel=1e-4)


def test_a_head_that_writes_next_to_nothing_has_the_scale_of_the_others(model, monkeypatch):
    rows = encode_examples(model, PAIRS)
    whole, begin = NormGuard(model, rows).normal, type(model).run

    def quiet(self, tokens, flow, logits):
        begin(self, tokens, flow, logits)
        flow.wkv[1][:, 0] = 0

    monkeypatch.setattr(type(model), "run", quiet)
    normal = NormGuard(model, rows).normal
    others = [0, 1, 3]
    assert torch.equal(normal.flatten()[others], whole.flatten()[others])
    assert 0 < float(normal[1, 0]) < 0.1 * float(whole.max())
