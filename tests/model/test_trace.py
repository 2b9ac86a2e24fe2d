"""trace: every name that can be kept, in every kind of text, and what is refused."""

import pytest
import torch

import rwkvlab as lab
import rwkvlab.model.trace as module
from rwkvlab.errors import ArgError, MismatchError, PromptError


@pytest.fixture
def model(geometry, checkpoint_file):
    return lab.load_model(checkpoint_file(*geometry)[0], device="cpu")


def names(model):
    return ("state", "r", "w", "k", "v", "y", *(("a", "b") if model.dims.arch == "x070" else ("u",)))


def test_a_text_of_one_token_and_a_wide_step(model):
    d, keep = model.dims, names(model)
    for every in (1, 64, 5000):
        trace = model.trace([3], every=every, keep=keep)
        assert trace.positions.tolist() == [0, 1]
        assert trace["state"].shape == (2, d.L, d.H, d.V, d.K) and not trace["state"][0].any()
        assert torch.equal(trace["state"][1], trace.final.wkv)
        assert trace["y"].shape == (d.L, 1, d.H, d.V)
        # from zeros: S = v k^T, and RWKV-5 and 6 read u*k in its place
        assert torch.allclose(trace["state"][1], trace["v"][:, 0, ..., None] * trace["k"][:, 0, :, None], atol=1e-5)
        bonus = trace["u"] if "u" in keep else 1.0
        read = trace["v"][:, 0] * (bonus * trace["k"][:, 0] * trace["r"][:, 0]).sum(-1, keepdim=True)
        assert torch.allclose(trace["y"][:, 0], read, atol=1e-4)


@pytest.mark.parametrize("heads", [None, [(0, 1), (0, 0), (0, 1)]])
def test_segments_change_nothing_but_rounding(checkpoint_file, geometries, monkeypatch, heads):
    for version in ("v7-N8-L1", "v6-N16"):
        model = lab.load_model(checkpoint_file(*geometries[version])[0], device="cpu")
        tokens, keep = [i * 7 % model.dims.vocab for i in range(61)], names(model)
        start = lab.State(torch.randn(model.zero().wkv.shape, generator=torch.Generator().manual_seed(0)), like=model)
        want = model.trace(tokens, start, every=6, heads=heads, keep=keep)
        for segment, numbers in ((20, 2**26), (1024, 3 * model.zero().wkv[0].numel()), (1024, 1)):
            monkeypatch.setattr(module, "SEGMENT", segment)
            monkeypatch.setattr(module, "NUMBERS", numbers)
            got = model.trace(tokens, start, every=6, heads=heads, keep=keep)
            for name in keep:
                assert torch.allclose(got[name], want[name], rtol=1e-4, atol=1e-4), (version, segment, name)


def test_only_what_was_asked_for_is_kept_and_shown(tiny):
    trace = tiny.trace("abc", keep=("y", "a"), every=2)
    assert list(trace.kept) == ["y", "a"] and trace["y"].shape == (2, 3, 2, 16)
    assert repr(trace) == "<Trace of 3 tokens, L2 H2, kept y, a, 0.0 MiB>"
    with pytest.raises(ArgError, match=r"'state' was not kept; pass keep=\('y', 'a', 'state'\)"):
        trace["state"]
    assert "1 heads" in repr(tiny.trace("abc", heads=[(1, 1)]))


def test_odd_requests_are_named(tiny, model):
    with pytest.raises(PromptError, match="empty"):
        tiny.trace("")
    for keep in ("state", ("u",), (None,), 3):
        with pytest.raises(ArgError, match="keep"):
            tiny.trace("abc", keep=keep)
    for heads in ([3], [(0,)], [(0, 0, 0)], ["ab"], [(0, 2)], [(-1, 0)], [(0, 1.5)], "ab"):
        with pytest.raises(ArgError, match="heads"):
            tiny.trace("abc", heads=heads)
    for every in (0, -1, 2.0, None, "4"):
        with pytest.raises(ArgError, match="every"):
            tiny.trace("abc", every=every)
    with pytest.raises(MismatchError):
        tiny.trace("abc", model.zero())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_same_is_kept(geometry, checkpoint_file):
    torch.backends.cuda.matmul.allow_tf32 = False
    cpu, gpu = (lab.load_model(checkpoint_file(*geometry)[0], device=device) for device in ("cpu", "cuda"))
    tokens, keep = [i * 7 % cpu.dims.vocab for i in range(100)], names(cpu)
    for heads in (None, [(0, 1), (0, 0)]):
        want, got = (model.trace(tokens, every=7, heads=heads, keep=keep) for model in (cpu, gpu))
        for name in keep:
            assert got[name].device.type == "cpu"
            assert float((got[name] - want[name]).norm() / want[name].norm()) < 1e-3, name
