from types import SimpleNamespace

import numpy as np
import pytest
import torch

import rwkvlab.measure.along as module
from rwkvlab.errors import NonFiniteError, PromptError
from rwkvlab.measure.along import along
from rwkvlab.model.engine import load_model


def expected(model, prompt, ids, state):
    logits = model.forward(prompt + ids[:-1], state).logits[0, len(prompt) - 1 :].double()
    return logits.log_softmax(-1)


@pytest.mark.parametrize("width", [1, 3, 1000])
def test_every_token_is_judged_given_all_before_it(tiny, random_state, monkeypatch, width):
    monkeypatch.setattr(module, "LOGITS", width * 3 * tiny.dims.vocab)
    prompt, ids, starts = [5, 9], [7, 250, 3, 3, 8], [random_state(), None, random_state(seed=1)]
    found = along(tiny, prompt, ids, starts, reference=1)
    zero = expected(tiny, prompt, ids, None)
    for row, start in enumerate(starts):
        logp = expected(tiny, prompt, ids, start)
        np.testing.assert_allclose(found.surprise[row], -logp[range(5), ids], atol=1e-4)
        np.testing.assert_allclose(found.kl[row], (logp.exp() * (logp - zero)).sum(-1), atol=1e-4)
        np.testing.assert_array_equal(found.best[row], logp.argmax(-1).numpy() == ids)
    assert (found.kl[1] == 0).all() and (found.kl[0] > 0).all()


def test_a_text_of_one_token_and_a_broken_state_are_named(tiny, random_state):
    for prompt, ids in (([], [1]), ([1], [])):
        with pytest.raises(PromptError, match="two tokens"):
            along(tiny, prompt, ids, [None])
    huge = random_state().replace(wkv=torch.full((2, 2, 16, 16), 3e38))
    with pytest.raises(NonFiniteError, match=r"states\[1\]"):
        along(tiny, [1], [2, 3], [None, huge])


@pytest.mark.parametrize(("vocab", "rows", "tokens"), [(65536, 3, 60), (4, 1, 40_000), (4, 2048, 40)])
def test_what_is_held_at_once_is_bounded(vocab, rows, tokens):
    """Logits by the vocabulary, all else by the tokens of all rows, in what comes before the judged part too."""
    seen = []

    def run(fed, flow, logits):
        seen.append((fed.shape[1], logits))
        return None if logits is None else torch.zeros(*fed.shape, vocab)

    model = SimpleNamespace(
        device=torch.device("cpu"), dims=SimpleNamespace(vocab=vocab), begin=lambda states: None, run=run
    )
    found = along(model, [1] * tokens, [2] * tokens, [None] * rows)
    assert found.surprise == pytest.approx(np.log(vocab))
    for logits in (None, "all"):
        assert sum(length for length, kind in seen if kind == logits) == tokens - (logits is None)
    assert max(length for length, _ in seen) <= max(16, 2**14 // rows)
    assert max(length for length, kind in seen if kind) * vocab * rows <= 2**22


def test_the_first_token_that_cannot_be_judged_is_named(tiny_file, monkeypatch):
    model = load_model(tiny_file, tokenizer="bytes")
    model._weights.emb[7] = torch.nan  # a file with it would not load
    monkeypatch.setattr(module, "LOGITS", 1)  # a token at a time: within a chunk, NaN reaches what was before
    words = r"states\[0\].* from about token 4 \(from 0\) on; .*grown without bound along this text"
    with pytest.raises(NonFiniteError, match=words):
        along(model, [1, 2], [3, 7, 5, 5], [None])
