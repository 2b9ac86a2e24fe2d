"""The pass with fused kernels is the ordinary pass: the same numbers and states, over the same memory."""

from functools import partial

import pytest
import torch
from wkv.layer import api
from wkv.layer import back as layer_back

from rwkvlab.model import fused, rwkv7
from rwkvlab.model.fused_back import block_back
from rwkvlab.model.parts import Flow, Way
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.recipe import digest_weights

SIZES = [(1, 1), (3, 1), (1, 70), (2, 9)]


@pytest.fixture(params=["v7-N64", "v7-N16"])
def weights(request, geometries):
    """Dims and fp32 weights by their official keys."""
    dims, ranks = geometries[request.param]
    return dims, random_weights(dims, ranks)


def flow(dims, rows, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return [torch.randn(rows, *shape, generator=generator) for _ in range(dims.L)]

    return Flow(draw(dims.H, dims.V, dims.K), *([x.to(dtype) for x in draw(dims.C)] for _ in range(2)))


def error(got, want):
    return float((got.float() - want).norm() / want.norm())


@pytest.mark.parametrize(("rows", "tokens"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_both_passes_give_the_same(weights, rows, tokens, dtype):
    dims, table = weights
    table = {key: x.to(dtype) for key, x in table.items()}
    exact = rwkv7.prepare({key: x.float() for key, x in table.items()}, dims)
    ids = torch.randint(0, dims.vocab, (rows, tokens), generator=torch.Generator().manual_seed(1))
    # the same start for all, rounded as the model keeps it
    start, plain, other = flow(dims, rows, dtype), flow(dims, rows, dtype), flow(dims, rows, dtype)
    start.att, start.ffn = ([x.float() for x in part] for part in (start.att, start.ffn))
    want = rwkv7.run(exact, ids, start)
    ordinary = rwkv7.run(rwkv7.prepare(table, dims), ids, plain)
    got = fused.run(fused.lay_out(table, dims), ids, other)
    assert got.dtype is dtype and got.shape == want.shape
    bound = 2e-6 if dtype is torch.float32 else 1.5 * error(ordinary, want)
    assert error(got, want) <= bound
    for name in ("wkv", "att", "ffn"):
        x, y, z = (torch.stack(getattr(one, name)).float() for one in (other, start, plain))
        assert error(x, y) <= (2e-6 if dtype is torch.float32 else max(1e-6, 1.5 * error(z, y)))


@torch.no_grad()
def test_one_token_keeps_the_memory_of_the_flow(weights):
    dims, table = weights
    p = fused.lay_out(table, dims)
    for rows in (1, 3):
        state = flow(dims, rows)
        places = [x.data_ptr() for x in (*state.wkv, *state.att, *state.ffn)]
        fused.run(p, torch.zeros(rows, 1, dtype=torch.int64), state)
        assert [x.data_ptr() for x in (*state.wkv, *state.att, *state.ffn)] == places


def test_large_matrices_are_kept_once(weights):
    dims, table = weights
    before, digest = {key: x.clone() for key, x in table.items()}, digest_weights(table)
    p = fused.lay_out(table, dims)
    assert all(table[key].equal(x) for key, x in before.items()) and digest_weights(table) == digest
    for layer, i in zip(p.layers, range(dims.L), strict=True):
        att = f"blocks.{i}.att."
        for key in ("receptance.weight", "key.weight", "value.weight", "output.weight", "w1", "g1"):
            assert table[att + key].untyped_storage().data_ptr() == layer.project.untyped_storage().data_ptr()
        assert table[att + "a2"].untyped_storage().data_ptr() == layer.up.untyped_storage().data_ptr()
    ordinary = rwkv7.prepare(table, dims)
    assert ordinary.layers[0].key.data_ptr() == table["blocks.0.att.key.weight"].data_ptr()


@torch.no_grad()
def test_a_flow_of_scattered_memory_is_read_as_it_is(weights):
    dims, table = weights
    p, ids = fused.lay_out(table, dims), torch.zeros(2, 1, dtype=torch.int64)
    want = fused.run(p, ids, flow(dims, 2))
    scattered = flow(dims, 2)
    scattered.wkv = [x.mT.contiguous().mT for x in scattered.wkv]
    scattered.att = [x.t().contiguous().t() for x in scattered.att]
    assert torch.allclose(fused.run(p, ids, scattered), want, atol=1e-5)


@pytest.mark.parametrize(("rows", "tokens"), [(1, 70), (2, 9)])
def test_fused_layers_take_the_first_of_two_passes(weights, rows, tokens):
    """Under autograd, with activations made again on the way back: the same x and gradients, the start untouched."""
    dims, table = weights
    packed = fused.lay_out(table, dims)
    ordinary = rwkv7.prepare(table, dims)
    ids = torch.randint(0, dims.vocab, (rows, tokens), generator=torch.Generator().manual_seed(1))
    calls = []

    def quick(i, *given):
        calls.append(i)
        return fused.block(packed, i, *given)

    found = []
    for p in (ordinary, ordinary._replace(quick=quick)):
        start = flow(dims, rows)
        moved = Flow([x.requires_grad_() for x in start.wkv], list(start.att), list(start.ffn))
        with torch.enable_grad():
            x = rwkv7.run(p, ids, moved, Way(recompute=True))
            ends = sum(y.square().mean() for y in moved.wkv)
            grads = torch.autograd.grad(x.square().mean() + ends, start.wkv)
        fresh = flow(dims, rows)
        for name in ("wkv", "att", "ffn"):
            assert all(torch.equal(x, y) for x, y in zip(getattr(start, name), getattr(fresh, name), strict=True))
        found.append([x, *grads, *moved.wkv, *moved.att, *moved.ffn])
    assert calls == list(range(dims.L))
    assert all(error(x.detach(), y.detach()) <= 1e-5 for x, y in zip(*found, strict=True))


@pytest.mark.parametrize(("rows", "tokens"), [(1, 70), (2, 9)])
@pytest.mark.parametrize("trained", ["wkv", "all"])
def test_fused_layers_take_the_way_back(weights, rows, tokens, trained):
    """The gradients of the initial state, token shifts among them, are those of autograd through the ordinary pass."""
    dims, table = weights
    packed = fused.lay_out(table, dims)
    ordinary = rwkv7.prepare(table, dims)
    ids = torch.randint(0, dims.vocab, (rows, tokens), generator=torch.Generator().manual_seed(1))
    calls = []

    def back(i, *given):
        calls.append(i)
        return block_back(packed, i, *given)

    slope = torch.randn(rows, tokens, dims.C, generator=torch.Generator().manual_seed(2))
    for ends in (False, True):
        found = []
        for p in (ordinary, ordinary._replace(quick=partial(fused.block, packed), back=back)):
            start = flow(dims, rows)
            parts = [start.wkv, start.att, start.ffn][: 1 if trained == "wkv" else 3]
            leaves = [x.requires_grad_() for part in parts for x in part]
            moved = Flow(list(start.wkv), list(start.att), list(start.ffn))
            with torch.enable_grad():
                total = (rwkv7.run(p, ids, moved, Way(recompute=True)) * slope).sum()
                if ends:
                    total = total + sum(x.square().sum() for x in (*moved.wkv, *moved.att, *moved.ffn))
                found.append(torch.autograd.grad(total, leaves))
        assert all(error(x, y) <= 1e-5 for x, y in zip(*found, strict=True))
    assert calls == 2 * [*reversed(range(dims.L))]


def test_the_states_alone_have_gradients_too(weights):
    """Where nothing that is read counts: the slope of x is none then."""
    dims, table = weights
    packed = fused.lay_out(table, dims)
    ordinary, found = rwkv7.prepare(table, dims), []
    for p in (ordinary, ordinary._replace(back=partial(block_back, packed))):
        start = flow(dims, 2)
        moved = Flow([x.requires_grad_() for x in start.wkv], list(start.att), list(start.ffn))
        with torch.enable_grad():
            rwkv7.run(p, torch.zeros(2, 5, dtype=torch.int64), moved, Way(recompute=True))
            found.append(torch.autograd.grad(moved.wkv[-1].square().sum(), start.wkv))
    assert all(error(x, y) <= 1e-5 for x, y in zip(*found, strict=True))


def test_the_kernels_take_the_way_back_in_the_interpreter(weights, monkeypatch):
    """A whole layer after the other through the Triton kernels; on a GPU they do without being asked."""
    pytest.importorskip("triton")
    for module in (api, layer_back):
        monkeypatch.setattr(module, "_on_gpu", lambda x: True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dims, table = weights
    table = {key: x.to(device) for key, x in table.items()}
    packed = fused.lay_out(table, dims)
    ordinary, found = rwkv7.prepare(table, dims), []
    ids = torch.randint(0, dims.vocab, (2, 5), generator=torch.Generator().manual_seed(1)).to(device)
    for p in (ordinary, ordinary._replace(quick=partial(fused.block, packed), back=partial(block_back, packed))):
        start = flow(dims, 2)
        leaves = [[x.to(device).requires_grad_() for x in part] for part in (start.wkv, start.att, start.ffn)]
        with torch.enable_grad():
            x = rwkv7.run(p, ids, Flow(*(list(part) for part in leaves)), Way(recompute=True))
            found.append(torch.autograd.grad(x.sin().sum(), [y for part in leaves for y in part]))
    assert all(error(x, y) <= 1e-5 for x, y in zip(*found, strict=True))
