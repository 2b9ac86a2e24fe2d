import numpy as np
import pytest
import torch

import rwkvlab.measure.along as module
from rwkvlab.errors import NonFiniteError, PromptError
from rwkvlab.measure.along import along


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
