"""The engine of a GPU on a CPU, with stand-ins: it says what the ordinary pass says, and keeps nothing alive."""

import contextlib
import gc
import weakref

import pytest
import torch

from rwkvlab.model import fused, gpu
from rwkvlab.model.engine import Model
from rwkvlab.model.gpu import Engine
from rwkvlab.model.graphs import Slot
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import Checkpoint
from rwkvlab.states.state import State


class Replayed:
    """Runs the step again, on the buffers that it was captured with."""

    def __init__(self, run):
        self.run, self.x = run, run()

    def replay(self):
        self.x.copy_(self.run())


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    def record(self, tokens, views):
        slot = weakref.proxy(self)  # as a graph, it does not keep the slot alive
        graph = Replayed(lambda: slot._run(tokens, views))
        return graph, graph.x

    monkeypatch.setattr(Slot, "_record", record)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


@pytest.fixture(params=["v7-N64", "v7-N16", "v7-N8-L1", "v6-N64", "v5-N16"])
def pair(request, geometries, monkeypatch):
    """The same model twice: as a CPU runs it, and with the engine."""
    dims, ranks = geometries[request.param]
    monkeypatch.setattr(gpu, "fits", lambda device, C, K, V: C % 16 == 0)
    models = [Model(Checkpoint(dims, random_weights(dims, ranks), "0" * 64), "random") for _ in range(2)]
    table = models[1]._checkpoint.weights
    models[1]._engine = Engine(models[1]._version, table, dims)
    assert (models[1]._engine._fused is not None) == (dims.arch == "x070" and dims.C % 16 == 0)
    models[1]._weights = models[1]._version.prepare(table, dims)
    return models


def agree(got, want):
    assert got.shape == want.shape and got.dtype is want.dtype
    assert float((got - want).norm()) <= 1e-5 * float(want.norm())


def random_state(model, seed):
    return State(torch.randn(model.zero().wkv.shape, generator=torch.Generator().manual_seed(seed)), like=model)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
def test_texts_and_tokens_are_read_as_without_it(pair, rows, monkeypatch):
    monkeypatch.setattr(gpu, "TOKENS", 20)
    monkeypatch.setattr(gpu, "LEAST", 4)
    states = [random_state(pair[0], row) if row != 1 else None for row in range(rows)]
    flows = [model.begin(states) for model in pair]
    ids = torch.arange(rows * 45).view(rows, 45) % pair[0].dims.vocab
    for part, which in ((ids[:, :41], "all"), *((ids[:, i : i + 1], "last") for i in range(41, 44)), (ids, "last")):
        want, got = (model.run(part, flow, which) for model, flow in zip(pair, flows, strict=True))
        agree(got, want)
    for at in range(3):
        want, got = (model.run(ids[:, at : at + 1], flow, "all") for model, flow in zip(pair, flows, strict=True))
        agree(got, want)
    assert [model.run(ids[:, :1], flow, None) for model, flow in zip(pair, flows, strict=True)] == [None, None]
    assert pair[1]._engine._graphs._slots[0].holds(flows[1])
    for name in ("wkv", "att", "ffn"):
        agree(*(torch.stack(getattr(flow, name)) for flow in flows[::-1]))


def test_what_needs_the_inside_of_a_layer_takes_the_ordinary_pass(pair, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(Engine, "run", never)
    tokens = [i % pair[0].dims.vocab for i in range(20)]
    want, got = (model.trace(tokens, every=8) for model in pair)
    agree(got["state"], want["state"])
    wkv = pair[1].zero().wkv.requires_grad_()
    pair[1].forward(tokens, State(wkv, like=pair[1])).logits.sum().backward()
    assert wkv.grad.isfinite().all()


def test_other_weights_drop_the_graphs_and_the_layout(pair):
    model, flow = pair[1], pair[1].begin([None])
    with torch.no_grad():
        for _ in range(3):
            model.run(torch.tensor([[1]]), flow)
        graphs = model._engine._graphs
        half = {key: x.half() for key, x in model._checkpoint.weights.items()}
        model._weights = model._version.prepare({k: x.float() for k, x in half.items()}, model.dims)
        model.run(torch.tensor([[1]]), model.begin([None]))
    assert model._engine._graphs is not graphs


def test_nothing_is_kept_alive_but_by_the_model(pair):
    model = pair.pop()
    with torch.no_grad():
        flow = model.begin([None, None])
        for _ in range(3):
            model.run(torch.tensor([[1], [2]]), flow)
    watched = [weakref.ref(x) for x in (model, model._engine, model._weights.emb)]
    gc.collect()
    gc.disable()
    try:
        del model, flow
        assert [ref() for ref in watched] == [None] * 3
    finally:
        gc.enable()


def test_a_broken_layout_is_never_mixed_with_other_weights(pair, monkeypatch):
    def never(*_):
        raise AssertionError

    model = pair[1]
    changed = {key: x.clone() for key, x in model._checkpoint.weights.items()}
    model._weights = model._version.prepare(changed, model.dims)
    monkeypatch.setattr(fused, "run", never)
    assert model.forward([1, 2, 3]).logits.isfinite().all()
