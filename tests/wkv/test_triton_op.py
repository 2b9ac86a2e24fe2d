"""The Triton kernels as torch sees them: compiled, traced, captured, differentiated once, and kept out of memory."""

import pytest
import torch
from wkv_cases import GPU, OPERATORS, both_operators, call, draw, gradients, needs_gpu

pytest.importorskip("triton")

from torch._subclasses.fake_tensor import FakeTensorMode
from wkv import checks, wkv6_step, wkv7_step
from wkv.triton_op import traced

OPS = torch.ops.wkv
STEPS = {"wkv7": wkv7_step, "wkv6": wkv6_step}


def forward_op(name):
    call(name, draw(name), "triton")  # registers it
    call(name, draw(name), "serial")
    return getattr(OPS, f"{name}_forward").default


def recorded(inputs):
    return [x.clone().requires_grad_() for x in inputs]


@both_operators
@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_the_forward_op_is_a_proper_op(name, keep):
    op = forward_op(name)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op, (*draw(name, T=5), None, None, keep), test_utils=tests)
    if keep == 3:
        inputs = (*recorded(draw(name, T=5)), None, None, keep)
        torch.library.opcheck(op, inputs, test_utils=(*tests, "test_aot_dispatch_dynamic"))


@both_operators
def test_the_backward_op_is_a_proper_op(name):
    *inputs, s0 = draw(name, T=5, dtype=torch.bfloat16)
    y, s, *kept = forward_op(name)(*inputs, s0, None, None, 3)
    op = getattr(OPS, f"{name}_backward").default
    torch.library.opcheck(op, (*inputs, *kept, y, s, None, None, None), test_utils=("test_schema", "test_faketensor"))


@both_operators
def test_the_serial_op_and_the_step_are_proper_ops(name):
    forward_op(name)
    tests = ("test_schema", "test_faketensor")
    inputs = draw(name, T=5, starts=2)
    cu, first = (torch.tensor(x, device=inputs[0].device) for x in ([0, 2, 5], [0, 1]))
    torch.library.opcheck(getattr(OPS, f"{name}_serial").default, (*inputs, cu, first, 2, 3), test_utils=tests)
    from wkv.wkv6.triton_step import wkv6_step_triton  # noqa: F401  (registers the op)
    from wkv.wkv7.triton_step import wkv7_step_triton  # noqa: F401

    *given, s = draw(name, B=2)
    step = [x[:, 0] if x.dim() == 4 else x for x in given]
    torch.library.opcheck(getattr(OPS, f"{name}_step").default, (*step, s), test_utils=tests)


@both_operators
@pytest.mark.parametrize("T", [5, 40])
def test_compiled_in_one_graph_it_gives_the_same_bits(name, T, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(checks, "_interpreted", lambda: not GPU)  # Triton's own switch cannot be traced
    backend = "inductor" if GPU else "aot_eager"

    def through(*inputs):
        y, s, chunks = OPERATORS[name](*inputs, chunk_states=64, backend="triton")
        return y, s, chunks

    compiled = torch.compile(through, fullgraph=True, backend=backend)
    for tokens in (T, T + 3):  # the second time with a symbol for T
        inputs = draw(name, T=tokens)
        with torch.no_grad():
            pairs = list(zip(compiled(*inputs), through(*inputs), strict=True))
        weights = [torch.ones_like(x) for x, _ in pairs]
        given = recorded(inputs)
        grads = (torch.autograd.grad(f(*given), given, weights) for f in (compiled, through))
        assert all(torch.equal(x, z) for x, z in [*pairs, *zip(*grads, strict=True)])


@both_operators
def test_a_packed_call_compiles_too(name, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(checks, "_interpreted", lambda: not GPU)

    def through(*inputs):
        return OPERATORS[name](*inputs, cu_seqlens=[0, 3, 3, 40], chunk_states=7, backend="triton")

    inputs = recorded(draw(name, T=40, starts=3))
    found = torch.compile(through, fullgraph=True, backend="aot_eager")(*inputs)
    assert all(torch.equal(x, z) for x, z in zip(found, through(*inputs), strict=True))


@both_operators
def test_a_compiled_step_writes_the_callers_state(name):
    if not GPU:
        pytest.skip("on a CPU a step is plain PyTorch")
    torch.compiler.reset()
    *given, s = draw(name, B=2)
    step = [x[:, 0] if x.dim() == 4 else x for x in given]
    other = s.clone()
    want = STEPS[name](*step, other)
    assert torch.equal(torch.compile(STEPS[name], fullgraph=True)(*step, s), want)
    assert torch.equal(s, other)


@both_operators
def test_a_second_derivative_is_refused_with_what_to_do(name):
    inputs = recorded(draw(name, T=5))
    y = call(name, inputs, "triton")[0]
    grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match=rf'{name}: the "triton" backend has no second derivative; pass backend='):
        torch.autograd.grad(grads[0].sum(), inputs)
    y = forward_op(name)(*inputs, None, None, 3)[0]
    grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(grads[0].sum(), inputs)
    want = gradients(name, inputs, "naive", only=[0])
    assert all(x.shape == z.shape for x, z in zip(grads, want, strict=True))


@both_operators
def test_only_a_recorded_call_keeps_anything(name):
    saved = []

    def pack(x):
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y, s = call(name, draw(name, T=5), "triton")
        assert y.grad_fn is None and not saved
        with torch.no_grad():
            call(name, recorded(draw(name, T=5)), "triton")
        assert not saved
        inputs = draw(name, T=5)
        inputs[-1].requires_grad_()
        y, s = call(name, inputs, "triton")
        assert y.grad_fn is not None and s.grad_fn is not None
    places = {x.data_ptr() for x in saved if x.numel()}
    assert {x.data_ptr() for x in inputs[:-1]} <= places  # the inputs themselves, and what the forward pass adds
    assert all(x.numel() == 0 for x in forward_op(name)(*draw(name, T=5), None, None, 0)[2:])


@both_operators
def test_a_strided_input_is_copied_once(name, monkeypatch):
    copied, plain = [], torch.Tensor.contiguous

    def contiguous(x, *args, **options):
        copied.extend([x] * (not x.is_contiguous()))
        return plain(x, *args, **options)

    monkeypatch.setattr(torch.Tensor, "contiguous", contiguous)
    inputs = recorded([torch.stack([x, x], dim=-1) for x in draw(name, T=5)])
    y, _ = call(name, [x[..., 0] for x in inputs], "triton")
    torch.autograd.grad(y, inputs, torch.ones_like(y))
    assert len(copied) == len(inputs)


@both_operators
def test_shapes_are_known_without_any_kernel(name):
    op = forward_op(name)
    with FakeTensorMode() as mode:
        inputs = [mode.from_tensor(x) for x in draw(name, B=2, T=130, H=3, dtype=torch.bfloat16)]
        assert traced(inputs)
        y, s, states, *_ = op(*inputs, None, None, 3)
        assert (y.shape, y.dtype) == (inputs[3].shape, torch.bfloat16)
        assert (s.shape, s.dtype) == (inputs[-1].shape, torch.float32)
        assert (states.shape, states.dtype) == ((2 * 3, *s.shape[1:]), torch.float32)
        call(name, inputs, "serial")
    assert not traced(draw(name))


@pytest.mark.parametrize("mark", [pytest.param(None, marks=needs_gpu)])
@both_operators
def test_a_cuda_graph_replays_forward_and_backward(name, mark):
    inputs = recorded(draw(name, B=2, T=100, H=3, K=64, V=64, dtype=torch.bfloat16))

    def both():
        outputs = call(name, inputs, "triton", cu_seqlens=None, chunk_states=64)
        return [*outputs, *torch.autograd.grad(outputs, inputs, [torch.ones_like(x) for x in outputs])]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = both()
    for seed in (1, 2):
        with torch.no_grad():
            for x, new in zip(
                inputs, draw(name, B=2, T=100, H=3, K=64, V=64, dtype=torch.bfloat16, seed=seed), strict=True
            ):
                x.copy_(new)
        graph.replay()
        assert all(torch.equal(x, z) for x, z in zip(found, both(), strict=True))


@pytest.mark.parametrize("mark", [pytest.param(None, marks=needs_gpu)])
@both_operators
def test_a_packed_call_is_captured_once_its_tables_are_made(name, mark):
    inputs = draw(name, T=100, H=2, starts=3)
    options = {"cu_seqlens": [0, 40, 40, 100], "chunk_states": 10}
    want = call(name, inputs, "triton", **options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(name, inputs, "triton", **options)
    graph.replay()
    assert all(torch.equal(x, z) for x, z in zip(found, want, strict=True))
