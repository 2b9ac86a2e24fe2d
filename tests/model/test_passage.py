"""A passage's transition is the product of its tokens' transitions, and soups of passages come near the whole."""

import pytest
import torch

from rwkvlab.bundled.shelf import bundled
from rwkvlab.errors import ArgError, MismatchError, PromptError
from rwkvlab.model import passage as passages
from rwkvlab.model.engine import load_model
from rwkvlab.model.passage import passage
from rwkvlab.states.soup import soup
from rwkvlab.states.state import State


@pytest.fixture
def model(geometry, checkpoint_file):
    return load_model(checkpoint_file(*geometry)[0], tokenizer=None)


def ids(model, tokens, seed=0):
    return torch.randint(0, model.dims.vocab, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def after(earlier):
    """The token-shifts of a passage's state, without its matrices."""
    return earlier.state.replace(wkv=0 * earlier.state.wkv)


def off(got, want, layer):
    return float((got - want)[layer].norm() / want[layer].norm())


def test_the_transition_is_the_product_of_those_of_the_tokens(model):
    text = ids(model, 7)
    got = passage(model, text)
    v7 = model.dims.arch == "x070"
    kept = model.trace(text, keep=("w", "a", "b") if v7 else ("w",))
    product = torch.eye(model.dims.K).double().expand(model.dims.L, model.dims.H, -1, -1)
    for t in range(7):
        step = torch.diag_embed(kept["w"][:, t].double().exp())
        if v7:
            step = step + kept["a"][:, t, :, :, None].double() * kept["b"][:, t, :, None, :].double()
        product = product @ step
    torch.testing.assert_close(got.transition.double(), product, atol=1e-6, rtol=1e-5)
    assert torch.equal(got.state.wkv, model.read(text).wkv)
    assert (got.tokens, got.fresh) == (7, True)


def test_in_layer_0_the_join_of_two_is_the_whole(model):
    text = ids(model, 20)
    one = passage(model, text[:9])
    two = passage(model, text[9:], after(one))
    joined, whole = soup([one, two]), model.read(text)
    assert off(joined.wkv, whole.wkv, 0) < 1e-5
    assert torch.allclose(joined.att_shift[0], whole.att_shift[0], atol=1e-5)


def test_only_the_first_may_begin_from_a_state(model):
    dims = model.dims
    start = State(torch.randn(dims.L, dims.H, dims.V, dims.K, generator=torch.Generator().manual_seed(1)), like=model)
    text = ids(model, 12)
    one = passage(model, text[:5], start)
    joined = soup([one, passage(model, text[5:], after(one))])
    assert not one.fresh
    assert off(joined.wkv, model.read(text, start).wkv, 0) < 1e-5
    assert joined.card.base == model.card.fingerprint


def test_segments_change_nothing(model, monkeypatch):
    text = ids(model, 23)
    whole = passage(model, text)
    monkeypatch.setattr(passages, "SEGMENT", 5)
    parts = passage(model, text)
    torch.testing.assert_close(parts.transition, whole.transition, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts.state.wkv, whole.state.wkv, atol=1e-4, rtol=1e-3)


def test_a_soup_comes_nearer_to_the_whole_than_a_sum_or_a_mean():
    model, _ = bundled()
    texts = ["bdac>abcd\nhgfe>efgh\n", "xqpa>apqx\nmnba>abmn\n", "zcde>cdez\nlkji>ijkl\n"]
    parts = [passage(model, text) for text in texts]
    whole, joined = model.read("".join(texts)).wkv, soup(parts).wkv
    total = sum(part.state.wkv for part in parts)
    for layer in range(2):
        error = off(joined, whole, layer)
        assert error < 0.4
        for other in (total, total / 3, parts[-1].state.wkv, soup(parts[::-1]).wkv):
            assert error < 0.7 * off(other, whole, layer)


def test_wrong_inputs_are_named(model):
    start = State(torch.zeros(1, 1, 3, 3))
    for call, error, words in (
        (lambda: passage(model, []), PromptError, "text: empty"),
        (lambda: passage(model, [model.dims.vocab]), PromptError, "id"),
        (lambda: passage(model, [1], start), MismatchError, "model"),
        (lambda: passage(model, [1], "state"), ArgError, "need a State or None"),
        (lambda: passage(model, None), PromptError, "need"),
    ):
        with pytest.raises(error, match=words):
            call()
