"""forward, read and trace: what goes in is never written to, what comes out is whole, wrong input is named."""

import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, MismatchError, PromptError


@pytest.fixture
def model(geometry, checkpoint_file):
    return lab.load_model(checkpoint_file(*geometry)[0], device="cpu")


def some_state(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lab.State(torch.randn(model.zero().wkv.shape, generator=generator), like=model)


def test_nothing_passed_in_is_written_to(model):
    state, tokens = some_state(model), torch.arange(20)
    before = [x.clone() for x in (state.wkv, state.att_shift, state.ffn_shift, tokens)]
    weights = [x.clone() for x in (model._weights.emb, model._weights.layers[0].key)]
    for piece in (tokens, tokens[:1]):
        model.forward(piece, state)
        model.read(piece.tolist(), state)
    assert all(map(torch.equal, before, (state.wkv, state.att_shift, state.ffn_shift, tokens)))
    assert all(map(torch.equal, weights, (model._weights.emb, model._weights.layers[0].key)))


def test_nothing_leaks_between_calls(model):
    a, b = some_state(model, 1), some_state(model, 2)
    first = model.forward([1, 2, 3], a)
    model.forward([4, 5], b)
    model.read([6], a)
    again = model.forward([1, 2, 3], a)
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.state.wkv, again.state.wkv)


def test_long_texts_are_read_in_segments_with_the_same_result(model, monkeypatch):
    tokens = [i % model.dims.vocab for i in range(50)]
    whole = model.forward(tokens)
    monkeypatch.setattr("rwkvlab.model.engine.SEGMENT", 16)
    parts = model.forward(tokens)
    assert torch.allclose(whole.logits, parts.logits, atol=1e-4 * float(whole.logits.std()))


def test_last_and_none_return_what_they_say(model):
    full = model.forward([1, 2, 3]).logits
    last = model.forward([1, 2, 3], logits="last").logits
    assert last.shape == (1, 1, model.dims.vocab)
    assert torch.allclose(last[:, 0], full[:, -1], atol=1e-5)
    assert model.forward([1, 2, 3], logits=None).logits is None
    assert model.forward([]).logits.shape == (1, 0, model.dims.vocab)
    assert torch.equal(model.forward([], some_state(model)).state.wkv, some_state(model).wkv)


def test_one_text_and_many_states_make_a_batch(model):
    states = [None, some_state(model)]
    out = model.forward([1, 2, 3], states)
    assert out.logits.shape[0] == 2
    with pytest.raises(ArgError, match="2 rows"):
        _ = out.state


def test_the_result_knows_its_base_and_origin(model):
    state = model.read([1, 2, 3], some_state(model).named("mine"))
    assert state.card.base == model.card.fingerprint
    assert state.card.arch == model.dims.arch
    assert state.card.recipe == "read(mine, 3 tokens)"
    assert state.has_shifts


@pytest.mark.parametrize(
    "tokens",
    [
        [-1],
        [10**6],
        [2**70],
        [1.0],
        [True],
        ["a"],
        [[1], [1, 2]],
        [1, [2]],
        torch.tensor([0.5]),
        torch.zeros(1, 1, 1).long(),
        None,
        3,
    ],
    ids=repr,
)
def test_bad_ids_are_refused_before_they_reach_the_model(model, tokens):
    with pytest.raises(PromptError):
        model.forward(tokens)


def test_states_that_do_not_fit_are_refused_with_what_differs(model):
    d = model.dims
    with pytest.raises(MismatchError, match=rf"L={d.L + 1} \(model {d.L}\)"):
        model.forward([1], lab.State(torch.zeros(d.L + 1, d.H, d.V, d.K)))
    with pytest.raises(MismatchError, match="another base model"):
        model.forward([1], model.zero().replace(card=lab.StateCard(base="0" * 64)))
    other = "x060" if d.arch != "x060" else "x070"
    with pytest.raises(MismatchError, match="made for RWKV-"):
        model.forward([1], model.zero().replace(card=lab.StateCard(arch=other)))
    with pytest.raises(ArgError, match="2 states for 3 rows"):
        model.forward([[1], [2], [3]], [None, None])
    with pytest.raises(ArgError, match="need a State"):
        model.forward([1], "emoji")


def test_trace_sees_the_states_that_reading_the_pieces_gives(model):
    tokens = [i * 7 % model.dims.vocab for i in range(23)]
    start = some_state(model)
    operand = "u" if model.dims.arch != "x070" else "a"
    trace = model.trace(tokens, start, every=5, keep=("state", "k", "v", "w", "y", operand))
    assert trace.positions.tolist() == [0, 5, 10, 15, 20, 23]
    for at, state in zip(trace.positions.tolist(), trace["state"], strict=True):
        want = model.read(tokens[:at], start).wkv
        assert torch.allclose(state, want, rtol=1e-4, atol=1e-4 * float(want.std()))
    d = model.dims
    assert trace["k"].shape == (d.L, 23, d.H, d.K)
    assert trace["w"].max() <= 0


def test_trace_keeps_the_heads_that_were_asked_for_in_their_order(model):
    tokens = list(range(12))
    last = (model.dims.L - 1, 1)
    pairs = [last, (0, 1), (0, 0)]
    some = model.trace(tokens, every=4, heads=pairs, keep=("state", "v"))
    whole = model.trace(tokens, every=4, keep=("state", "v"))
    for index, (layer, head) in enumerate(pairs):
        assert torch.equal(some["state"][:, index], whole["state"][:, layer, head])
        assert torch.equal(some["v"][index], whole["v"][layer, :, head])
    with pytest.raises(ArgError, match="was not kept"):
        some["k"]
    with pytest.raises(ArgError, match="keep"):
        model.trace(tokens, keep=("q",))
    with pytest.raises(ArgError, match="head"):
        model.trace(tokens, heads=[(0, 99)])


@pytest.mark.parametrize(("length", "every"), [(1025, 64), (3000, 100), (2100, 5000)])
def test_trace_of_a_long_text_keeps_every_token_and_state(checkpoint_file, geometries, length, every):
    model = lab.load_model(checkpoint_file(*geometries["v7-N8-L1"])[0], device="cpu")
    tokens = [i * 7 % model.dims.vocab for i in range(length)]
    trace = model.trace(tokens, every=every, keep=("state", "k"))
    assert trace["k"].shape[:2] == (model.dims.L, length)
    assert len(trace["state"]) == len(trace.positions) == -(-length // every) + 1
    for index in (1, len(trace.positions) - 2):
        want = model.read(tokens[: int(trace.positions[index])]).wkv
        assert torch.allclose(trace["state"][index], want, rtol=1e-3, atol=1e-4)


def test_odd_requests_are_refused_or_empty(model):
    assert model.forward([], logits="last").logits.shape == (1, 0, model.dims.vocab)
    for heads in ([], 5):
        with pytest.raises(ArgError, match="heads"):
            model.trace([1], heads=heads)


def test_the_named_backend_computes_single_tokens_too(geometry, checkpoint_file):
    path = checkpoint_file(*geometry)[0]
    by_name = [lab.load_model(path, device="cpu", backend=name) for name in ("auto", "naive", "chunked")]
    first, *others = (model.forward([3], model.read([1, 2])).logits for model in by_name)
    assert all(torch.allclose(first, other, atol=1e-4) for other in others)
    with pytest.raises(ArgError, match="backend: 'triton' needs"):
        lab.load_model(path, device="cpu", backend="triton")
    with pytest.raises(ArgError, match="meta"):
        lab.load_model(path, device="meta")
