"""The Triton kernels on a GPU: three hundred shapes with every gradient, and what is too large for the interpreter."""

from itertools import product

import pytest
import torch
from wkv_cases import (
    LEAST,
    OPERATORS,
    both_operators,
    call,
    check_gradients,
    check_outputs,
    draw,
    error,
    exact_gradients,
    gradients,
    needs_gpu,
    truth,
)

pytest.importorskip("triton")

pytestmark = needs_gpu
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
HEADS = [(64, 64), (16, 16), (32, 64), (64, 128), (128, 32), (128, 128), (48, 40)]
LENGTHS = [1, 2, 15, 16, 17, 33, 63, 64, 65, 100, 127, 128, 129, 200, 257, 320, 500, 1000]
BATCHES = [(1, 1), (2, 3), (3, 1), (1, 5)]


def cases():
    """54 (B,T,H,K,V): every length thrice, K and V equal in half of them."""
    for i, (T, again) in enumerate(product(LENGTHS, range(3))):
        K, V = HEADS[0] if again == 0 else HEADS[(i * 5 + again) % len(HEADS)]
        B, H = BATCHES[(i + again) % len(BATCHES)]
        yield pytest.param(B, T, H, K, V, id=f"B{B}-T{T}-H{H}-K{K}-V{V}")


@both_operators
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda x: str(x)[6:])
@pytest.mark.parametrize(("B", "T", "H", "K", "V"), [*cases()])
@pytest.mark.usefixtures("poison")
def test_outputs_and_gradients_agree_with_the_truth(name, dtype, B, T, H, K, V):
    inputs = draw(name, B, T, H, K, V, dtype=dtype)
    options = {"chunk_states": (64, 128, 50)[T % 3]}
    want = truth(name, inputs, **options)
    check_outputs(call(name, inputs, "triton", **options), want, dtype)
    check_outputs(call(name, inputs, "serial", **options), want, dtype)
    check_gradients(gradients(name, inputs, "triton", **options), exact_gradients(name, inputs, **options), dtype)


@both_operators
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda x: str(x)[6:])
@pytest.mark.parametrize(("B", "T"), [(100, 48), (100, 112), (100, 192), (3, 48), (3, 512), (40, 500)])
@pytest.mark.usefixtures("poison")
def test_decays_in_fp32_beside_sixteen_bits_as_models_have_them(name, dtype, B, T):
    """Few heads, and so many that they alone fill a GPU; then half of the tokens silent, as where answers count."""
    inputs = draw(name, B, T, 4, 64, 64, dtype=dtype)
    inputs[1] = draw(name, B, T, 4, 64, 64)[1]
    check_outputs(call(name, inputs, "triton"), truth(name, inputs), dtype)
    loud = exact_gradients(name, inputs)
    check_gradients(gradients(name, inputs, "triton"), loud, dtype)
    asked = {"only": [0], "silent": T // 2}
    found, want = gradients(name, inputs, "triton", **asked), exact_gradients(name, inputs, **asked)
    check_gradients([*found[:-1], loud[-1] + found[-1] - want[-1]], [*want[:-1], loud[-1]], dtype)  # s0 is far away


@both_operators
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda x: str(x)[6:])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("poison")
def test_packed_sequences_agree_with_the_truth(name, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, (5, 70, 200, 400)[seed], (6,), generator=g)
    ends = [0, *lengths.cumsum(0).tolist()]
    inputs = draw(name, 1, ends[-1], 2, 64, 64, starts=6, dtype=dtype, seed=seed)
    options = {"cu_seqlens": ends, "chunk_states": (None, 64, 100, 7)[seed]}
    check_outputs(call(name, inputs, "triton", **options), truth(name, inputs, **options), dtype)
    check_gradients(gradients(name, inputs, "triton", **options), exact_gradients(name, inputs, **options), dtype)


@both_operators
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda x: str(x)[6:])
def test_twenty_runs_are_bit_identical(name, dtype):
    inputs = draw(name, 4, 1000, 8, 64, 64, dtype=dtype)
    first = [*call(name, inputs, "triton"), *gradients(name, inputs, "triton")]
    for _ in range(20):
        again = [*call(name, inputs, "triton"), *gradients(name, inputs, "triton")]
        assert all(torch.equal(x, z) for x, z in zip(again, first, strict=True))


@both_operators
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda x: str(x)[6:])
@pytest.mark.parametrize("w", ["drawn", 0.0, LEAST])
def test_131072_tokens_keep_their_digits(name, dtype, w):
    inputs = draw(name, 1, 131072, 2, 64, 64, dtype=dtype)
    if w != "drawn":
        inputs[1].fill_(w)
        inputs[2] *= 0.01
    found = gradients(name, inputs, "triton")
    assert all(x.isfinite().all() for x in found)
    if w != 0.0:  # nothing is ever forgotten: the sums of a truth differ in their order alone by more than a bound
        want = gradients(name, [x.double() for x in inputs], "chunked")
        check_gradients(found, want, dtype)
        exact = call(name, [x.double() for x in inputs], "chunked")
        check_outputs(call(name, inputs, "triton"), exact, dtype)


@both_operators
def test_more_heads_than_a_grid_axis_holds(name):
    inputs = draw(name, 2, 3, 70_000, 16, 16)
    check_outputs(call(name, inputs, "triton"), truth(name, inputs), torch.float32)
    check_gradients(gradients(name, inputs, "triton"), exact_gradients(name, inputs), torch.float32)


@both_operators
@pytest.mark.parametrize(("K", "V"), [(16, 128), (128, 16)])
def test_tensors_of_more_than_two_to_the_31_elements(name, K, V):
    """129 copies of a small batch must all give that batch's own bits."""
    torch.cuda.empty_cache()  # what the test before has given back
    if torch.cuda.mem_get_info()[0] < 75e9:
        pytest.skip("needs 75 GB of free GPU memory")
    copies, small = 129, draw(name, 4, 256, 128, K, V, dtype=torch.bfloat16)
    large = [x.repeat(copies, *[1] * (x.dim() - 1)) if x.shape[0] == 4 else x for x in small]
    assert max(x.numel() for x in large) > 2**31
    y, s = call(name, small, "triton")
    weights = [y, s]
    want = [y, s, *_grads(name, small, weights)]
    weights = [x.repeat(copies, *[1] * (x.dim() - 1)) for x in weights]
    found = [*call(name, large, "triton"), *_grads(name, large, weights)]
    for x, z in zip(found, want, strict=True):
        if x.shape != z.shape:
            assert all(torch.equal(part, z) for part in x.split(4))
        else:  # of u: summed over the copies, one after the other
            assert error(x, copies * z.double()) <= 5e-3


def _grads(name, inputs, weights):
    inputs = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(call(name, inputs, "triton"), inputs, weights)


@both_operators
def test_cuda_tensors_take_the_kernels_unasked(name, monkeypatch):
    inputs = [x.requires_grad_() for x in draw(name, 1, 100, 2, 64, 64, dtype=torch.bfloat16)]
    y, s = OPERATORS[name](*inputs)
    assert "Recorded" in type(y.grad_fn).__name__
    with torch.no_grad():
        few = [x[:, :4] if x.dim() == 4 and x.shape[1] == 100 else x for x in inputs]
        assert torch.equal(OPERATORS[name](*few)[0], call(name, few, "serial")[0])
        assert torch.equal(OPERATORS[name](*inputs)[0], y)
    monkeypatch.setattr("wkv.checks.HAS_TRITON", False)
    want = OPERATORS[name](*inputs)
    assert error(y, want[0]) <= 5e-3 and error(s, want[1]) <= 2e-3
    double = OPERATORS[name](*(x.double() for x in inputs))
    assert double[1].dtype is torch.float64
