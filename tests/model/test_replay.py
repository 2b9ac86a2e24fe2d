"""What is left of an initial state: against the product of transitions written out, and against two whole runs."""

import pytest
import torch
from wkv.wkv6.naive import wkv6_naive
from wkv.wkv7.naive import wkv7_naive

import rwkvlab as lab
import rwkvlab.model.replay as module
from rwkvlab.errors import ArgError, MismatchError, PromptError
from rwkvlab.model.replay import carried, replay


@pytest.fixture
def model(geometry, checkpoint_file):
    return lab.load_model(checkpoint_file(*geometry)[0], device="cpu")


def some_state(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lab.State(torch.randn(model.zero().wkv.shape, generator=generator), like=model)


def operands(model, tokens, state):
    """The inputs of every WKV on the way from `state`, float64: a dict a layer, each [1,T,H,·]."""
    names = ("r", "w", "k", "v", *(("a", "b") if model.dims.arch == "x070" else ("u",)))
    trace = model.trace(tokens, state, every=1000, keep=names)
    return [
        {name: trace[name][i].double() if name == "u" else trace[name][i][None].double() for name in names}
        for i in range(model.dims.L)
    ]


def by_products(given, start):
    """S_0 P_1 … P_t for t = 0 … T, [T+1,H,V,K], and what each token reads out of it, [T,H,V]: matrices multiplied."""
    states, reads = [start], []
    r, w = given["r"][0], given["w"][0].exp()
    for t in range(r.shape[0]):
        step = torch.diag_embed(w[t])
        if "a" in given:
            step = step + given["a"][0, t, :, :, None] * given["b"][0, t, :, None, :]
        states.append(states[-1] @ step)
        # RWKV-7 updates and then reads, RWKV-5 and 6 read what was there before
        seen = states[-1] if "a" in given else states[-2]
        reads.append((seen @ r[t, :, :, None])[..., 0])
    return torch.stack(states), torch.stack(reads)


def whole_run(given, start):
    kernel, names = (wkv7_naive, "rwkvab") if "a" in given else (wkv6_naive, "rwkvu")
    return kernel(*(given[name] for name in names), start)


def far(got, want):
    return float((got - want).norm() / want.norm())


def hidden(squares, every):
    return torch.stack([part.mean(0) for part in squares.split(every)]).sqrt()


@pytest.mark.parametrize(("length", "every"), [(1, 1), (1, 16), (13, 5), (40, 16), (67, 1)])
def test_what_is_carried_is_the_product_of_the_transitions(model, length, every):
    tokens, start, other = [i * 7 % model.dims.vocab for i in range(length)], some_state(model), some_state(model, 1)
    got = carried(model, tokens, start, inputs_of=other, every=every)
    assert got.positions.tolist() == [*range(0, length, every), length]
    for layer, given in enumerate(operands(model, tokens, other)):
        states, reads = by_products(given, start.wkv[layer].double())
        assert far(got.left[layer], states[-1]) < 1e-10
        assert far(got.norm[:, layer], states[got.positions].norm(dim=(-2, -1))) < 1e-10
        assert far(got.readout[1:, layer], hidden(reads.square().sum(-1), every)) < 1e-10
    assert got.readout[0].isnan().all() and got.whole[0].isnan().all()


def test_it_is_the_difference_of_two_runs_on_the_same_inputs(model):
    tokens, start = [i * 5 % model.dims.vocab for i in range(50)], some_state(model)
    got = carried(model, tokens, start, inputs_of=start, every=10)
    for layer, given in enumerate(operands(model, tokens, start)):
        s0 = start.wkv[layer, None].double()
        (y, one), (y_zero, two) = whole_run(given, s0), whole_run(given, torch.zeros_like(s0))
        assert far(got.left[layer], (one - two)[0]) < 1e-10
        assert far(got.readout[1:, layer], hidden((y - y_zero)[0].square().sum(-1), 10)) < 1e-10
        assert far(got.whole[1:, layer], hidden(y[0].square().sum(-1), 10)) < 1e-5  # the model's own run is fp32
        again, end = replay(given, s0)
        assert far(again, y) < 1e-10 and far(end, one) < 1e-10


def test_a_tuned_state_is_carried_exactly():
    model, shelf = lab.bundled("micro")
    start, tokens = shelf["sort"], model.encode("qwertz>ertwz")
    got = carried(model, tokens, start, inputs_of=start, every=1)
    for layer, given in enumerate(operands(model, tokens, start)):
        s0 = start.wkv[layer, None].double()
        (y, one), (y_zero, two) = whole_run(given, s0), whole_run(given, torch.zeros_like(s0))
        assert far(got.left[layer], (one - two)[0]) < 1e-10
        assert far(got.readout[1:, layer], (y - y_zero)[0].norm(dim=-1)) < 1e-10


def test_the_inputs_are_those_of_the_run_that_was_named(model):
    tokens, start = [i * 3 % model.dims.vocab for i in range(30)], some_state(model)
    mounted, zero = (carried(model, tokens, start, inputs_of=state) for state in (start, None))
    assert torch.equal(mounted.norm[:, 0], zero.norm[:, 0])  # layer 0 reads the embedding alone
    assert torch.equal(mounted.readout[1:, 0], zero.readout[1:, 0])
    if model.dims.L > 1:
        assert far(mounted.readout[1:, 1:], zero.readout[1:, 1:]) > 1e-3
        # the decay of RWKV-5 is the same for every input
        assert torch.equal(mounted.norm, zero.norm) == (model.dims.arch == "x052")
    assert torch.equal(mounted.norm[0], zero.norm[0])


@pytest.mark.parametrize("arch", ["v7-N8-L1", "v6-N16"])
def test_a_long_text_comes_in_segments_that_change_nothing(checkpoint_file, geometries, monkeypatch, arch):
    model = lab.load_model(checkpoint_file(*geometries[arch])[0], device="cpu")
    tokens, start = [i * 7 % model.dims.vocab for i in range(103)], some_state(model)
    want = carried(model, tokens, start, inputs_of=start, every=8)
    monkeypatch.setattr(module, "SEGMENT", 20)  # 16 tokens at once
    monkeypatch.setattr(module, "NUMBERS", 1)  # one state at once
    got = carried(model, tokens, start, inputs_of=start, every=8)
    for name in ("norm", "readout", "whole"):
        one, two = getattr(got, name), getattr(want, name)
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-30, equal_nan=True), name
        assert one[1:].isfinite().all()


def test_the_start_is_not_written_to_and_wrong_input_is_named(tiny, random_state, model):
    start = random_state()
    before = start.wkv.clone()
    carried(tiny, "abc", start, inputs_of=start)
    assert torch.equal(start.wkv, before)
    with pytest.raises(PromptError, match="empty"):
        carried(tiny, "", start, inputs_of=None)
    with pytest.raises(ArgError, match="start: need a State, got NoneType"):
        carried(tiny, "abc", None, inputs_of=None)
    for every in (0, 1025, 1.5, True):
        with pytest.raises(ArgError, match="every"):
            carried(tiny, "abc", start, inputs_of=None, every=every)
    for wrong in ({"start": some_state(model), "inputs_of": None}, {"start": start, "inputs_of": some_state(model)}):
        with pytest.raises(MismatchError):
            carried(tiny, "abc", **wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_same_is_left(geometry, checkpoint_file):
    torch.backends.cuda.matmul.allow_tf32 = False
    cpu, gpu = (lab.load_model(checkpoint_file(*geometry)[0], device=device) for device in ("cpu", "cuda"))
    tokens, start = [i * 7 % cpu.dims.vocab for i in range(100)], some_state(cpu)
    want, got = (carried(model, tokens, start, inputs_of=start, every=7) for model in (cpu, gpu))
    for name in ("norm", "readout", "whole", "left"):
        one, two = getattr(got, name), getattr(want, name)
        assert one.device.type == "cpu" and far(one.nan_to_num(), two.nan_to_num()) < 1e-3, name
