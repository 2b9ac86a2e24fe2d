"""Every backend against the float64 truth, whatever the length, the shape, the dtype, the decay and the packing.

Without a GPU the Triton kernels run in Triton's interpreter, which is slow: shapes are small here, and test_gpu.py has
the large ones.
"""

from itertools import pairwise

import pytest
import torch
from wkv_cases import (
    BOUNDS,
    GPU,
    LEAST,
    WAYS,
    both_operators,
    call,
    check_gradients,
    check_outputs,
    draw,
    error,
    exact_gradients,
    gradients,
    truth,
)

pytest.importorskip("triton")

pytestmark = pytest.mark.usefixtures("poison")
differentiable = pytest.mark.parametrize("way", ["chunked", "triton"])
every_way = pytest.mark.parametrize("way", WAYS)


def dtypes(*ways):
    """One case a (way, dtype)."""
    cases = [pytest.param(way, x, id=f"{way}-{str(x)[6:]}") for way in ways for x in WAYS[way]]
    return pytest.mark.parametrize(("way", "dtype"), cases)


def best(way):
    """The dtype in which a way is the most exact, and how close two of its own results must be."""
    dtype = WAYS[way][0]
    return dtype, BOUNDS[dtype][2]


def timed(inputs, at):
    return [x[:, at] if x.dim() == 4 else x for x in inputs]


@both_operators
@every_way
@pytest.mark.parametrize("T", [0, 1, 7, 63, 64, 65])
def test_any_length_agrees_with_the_truth(name, way, T):
    dtype = best(way)[0] if T % 2 else torch.float32
    inputs = draw(name, B=2, T=T, K=16, V=24, way=way, dtype=dtype)
    check_outputs(call(name, inputs, way), truth(name, inputs), dtype)


@both_operators
@dtypes("chunked", "triton", "serial")
def test_any_dtype_agrees_with_the_truth(name, way, dtype):
    inputs = draw(name, T=65, H=2, K=32, V=16, way=way, dtype=dtype)
    found = call(name, inputs, way, chunk_states=64)
    assert [x.dtype for x in found[1:]] == [inputs[-1].dtype] * 2
    check_outputs(found, truth(name, inputs, chunk_states=64), dtype)


@both_operators
@dtypes("chunked", "triton")
def test_gradients_agree_with_the_truth_in_every_dtype(name, way, dtype):
    inputs = draw(name, T=70, K=16, V=32, way=way, dtype=dtype)
    found = gradients(name, inputs, way)
    assert [x.dtype for x in found] == [x.dtype for x in inputs]
    check_gradients(found, exact_gradients(name, inputs), dtype)


@both_operators
@differentiable
@pytest.mark.parametrize("T", [0, 1, 64, 130])
def test_gradients_agree_with_the_truth_at_any_length(name, way, T):
    inputs = draw(name, B=2 if T < 64 else 1, T=T, way=way)
    options = {"chunk_states": 64}
    check_gradients(gradients(name, inputs, way, **options), exact_gradients(name, inputs, **options), torch.float32)


@both_operators
@differentiable
@pytest.mark.parametrize("only", [[0], [1], [2]], ids=["y", "s", "chunk states"])
def test_the_gradient_through_each_output_counts(name, way, only):
    inputs = draw(name, T=70, way=way)
    options = {"chunk_states": 48, "only": only}
    check_gradients(gradients(name, inputs, way, **options), exact_gradients(name, inputs, **options), torch.float32)


@both_operators
@differentiable
def test_one_input_alone_may_want_its_gradient(name, way):
    inputs = draw(name, T=40, way=way)
    want = gradients(name, inputs, way, only=[0, 1])
    g = torch.Generator().manual_seed(1)
    for i, right in enumerate(want):
        alone = [x.clone().requires_grad_(i == j) for j, x in enumerate(inputs)]
        outputs = call(name, alone, way)
        g.manual_seed(1)
        weights = [torch.randn(x.shape, generator=g).bfloat16().to(x) for x in outputs]
        chosen = [j for j, x in enumerate(outputs) if x.requires_grad]
        (found,) = torch.autograd.grad([outputs[j] for j in chosen], alone[i], [weights[j] for j in chosen])
        assert error(found, right) <= (0 if way == "triton" else 1e-6)


@both_operators
@pytest.mark.parametrize("way", ["triton", "serial"])
@pytest.mark.parametrize(("K", "V"), [(16, 64), (64, 16), (48, 40), (5, 17), (128, 32)])
def test_heads_of_any_size_agree_with_the_truth(name, way, K, V):
    inputs = draw(name, T=20, K=K, V=V, way=way)
    check_outputs(call(name, inputs, way), truth(name, inputs), torch.float32)
    if way == "triton":
        check_gradients(gradients(name, inputs, way), exact_gradients(name, inputs), torch.float32)


@both_operators
@differentiable
def test_the_decay_may_be_fp32_beside_sixteen_bits(name, way):
    inputs = draw(name, T=40, way=way, dtype=torch.bfloat16 if way == "triton" else torch.float32)
    inputs[1] = draw(name, T=40, way=way)[1]
    dtype = inputs[3].dtype
    check_outputs(call(name, inputs, way), truth(name, inputs), dtype)
    found = gradients(name, inputs, way)
    assert found[1].dtype is torch.float32
    check_gradients(found, exact_gradients(name, inputs), dtype)


def extremes(name, way):
    """Log decays that an operator takes on a backend."""
    return [0.0, LEAST] if name == "wkv7" and way == "triton" else [0.0, LEAST, -5.0, -1e4, -torch.inf, "mixed"]


@pytest.mark.parametrize(
    ("name", "way", "w"),
    [(n, way, w) for n in ("wkv7", "wkv6") for way in ("chunked", "triton", "serial") for w in extremes(n, way)],
)
def test_extreme_decays_are_exact_forward_and_backward(name, way, w):
    inputs = draw(name, T=70, way=way)
    if w == "mixed":  # one channel forgets all at once now and then, and remembers well in between
        inputs[1][:, ::5, :, ::2] = -1e4
        inputs[1][:, 3::7, :, 1::4] = -torch.inf
    else:
        inputs[1].fill_(w)
    check_outputs(call(name, inputs, way), truth(name, inputs), torch.float32)
    if way != "serial":
        check_gradients(gradients(name, inputs, way), exact_gradients(name, inputs), torch.float32)


@both_operators
@differentiable
def test_keys_and_values_of_nothing_give_finite_gradients(name, way):
    for zero in (2, 3):
        inputs = draw(name, T=40, way=way, dtype=WAYS[way][-1])
        inputs[zero].zero_()
        inputs[-1].zero_()
        check_outputs(call(name, inputs, way), truth(name, inputs), inputs[3].dtype)
        check_gradients(gradients(name, inputs, way), exact_gradients(name, inputs), inputs[3].dtype)


@both_operators
@differentiable
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_values_and_gradients_may_be_nothing_where_receptances_and_keys_are_large(name, way, size):
    dtype = WAYS[way][-1]
    inputs = draw(name, T=200, way=way, dtype=dtype)
    for large in (0, 2):
        inputs[large] *= size
    inputs[3][:, :70] = 0  # whole chunks of tokens without a value, from a state of zeros
    inputs[-1].zero_()
    check_outputs(call(name, inputs, way), truth(name, inputs), dtype)
    weights = torch.zeros_like(inputs[3])
    weights[:, 3::7] = 1.0
    weights[:, 130:] = 0  # and without a gradient, up to the end
    found, want = ([], [])
    for kind, result in ((way, found), ("naive", want)):
        given = [(x if kind == way else x.double()).detach().requires_grad_() for x in inputs]
        y, _ = call(name, given, kind)
        result += torch.autograd.grad(y, given, weights.to(y.dtype))
    check_gradients(found, want, dtype)


@both_operators
@every_way
def test_large_and_small_inputs_keep_their_digits(name, way):
    dtype = WAYS[way][-1]
    for size in (1e-4, 3e3):
        inputs = draw(name, T=40, way=way, dtype=dtype)
        inputs[3] *= size
        inputs[-1] *= size
        check_outputs(call(name, inputs, way), truth(name, inputs), dtype)


@every_way
def test_the_same_key_again_and_again_loses_no_digits(way):
    """The triangle is then full of ones: sums of its powers would cancel numbers of a thousand and more."""
    inputs = draw("wkv7", T=64, way=way)
    inputs[1] = torch.zeros_like(inputs[1])
    inputs[4] = inputs[4][:, :1].expand_as(inputs[4])
    inputs[5] = -inputs[4]
    check_outputs(call("wkv7", inputs, way), truth("wkv7", inputs), torch.float32)


@both_operators
@every_way
def test_inputs_of_any_strides_give_the_same_bits(name, way):
    inputs = draw(name, B=2, T=40, way=way, dtype=best(way)[0])
    want = call(name, inputs, way)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    spaced = [torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0] for x in inputs]
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape) for x in inputs]
    for strange in (turned, spaced, shifted):
        assert any(not x.is_contiguous() or x.data_ptr() % 16 for x in strange)
        for x, right in zip(call(name, strange, way), want, strict=True):
            assert error(x, right) == 0 if way != "chunked" else error(x, right) <= 1e-13
    broadcast = [x[:1, :1].expand_as(x) if x.dim() == 4 and x.shape[1] == 40 else x for x in inputs]
    check_outputs(call(name, broadcast, way), truth(name, broadcast), inputs[3].dtype)


@both_operators
@differentiable
def test_gradients_of_strided_inputs_and_outputs_are_the_same(name, way):
    inputs = draw(name, T=40, way=way)
    want = gradients(name, inputs, way, only=[0])
    spaced = [torch.stack([x, x], dim=-1)[..., 0].requires_grad_() for x in inputs]
    y = call(name, spaced, way)[0]
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(y.shape, generator=g).bfloat16().to(y)
    weight = weight.transpose(1, 3).contiguous().transpose(1, 3)
    for x, right in zip(torch.autograd.grad(y, spaced, weight), want, strict=True):
        assert error(x, right) <= 1e-6


@both_operators
@every_way
def test_split_anywhere_equals_whole(name, way):
    dtype, close = best(way)
    *inputs, s0 = draw(name, T=67, way=way, dtype=dtype)
    y, s = call(name, [*inputs, s0], way)
    for cut in (1, 15, 16, 17, 40, 64, 66) if way != "triton" or GPU else (40, 64):
        y0, middle = call(name, [*timed(inputs, slice(cut)), s0], way)
        y1, end = call(name, [*timed(inputs, slice(cut, None)), middle], way)
        assert error(torch.cat([y0, y1], dim=1), y) <= close
        assert error(end, s) <= close


@both_operators
@every_way
def test_the_start_superposes(name, way):
    """y and s are affine in s0: the weights of the starts carry over, the rest falls to the zero start."""
    dtype, close = best(way)
    *inputs, s0 = draw(name, T=50, way=way, dtype=dtype)
    other = draw(name, T=50, seed=5, way=way, dtype=dtype)[-1]
    at = [call(name, [*inputs, start], way) for start in (0 * s0, s0, other, 2 * s0 - 3 * other)]
    for zero, one, two, both in zip(*at, strict=True):
        assert error(both, 2 * one - 3 * two + 2 * zero) <= close


@both_operators
@every_way
@pytest.mark.parametrize("every", [None, 64, 30])
def test_packed_sequences_are_separate_ones(name, way, every):
    dtype = best(way)[0]
    ends = [0, 0, 7, 7, 39, 104, 105]
    *inputs, s0 = draw(name, T=ends[-1], starts=6, way=way, dtype=dtype)
    found = call(name, [*inputs, s0], way, cu_seqlens=ends, chunk_states=every)
    spans = list(enumerate(pairwise(ends)))
    alone = [truth(name, [*timed(inputs, slice(*at)), s0[i : i + 1]], chunk_states=every) for i, at in spans]
    want = [torch.cat(x, dim=axis) for x, axis in zip(zip(*alone, strict=True), (1, 0, 1), strict=False)]
    check_outputs(found, want, dtype)
    if way != "serial":
        options = {"cu_seqlens": torch.tensor(ends), "chunk_states": every}
        grads = gradients(name, [*inputs, s0], way, **options)
        check_gradients(grads, exact_gradients(name, [*inputs, s0], **options), dtype)


@both_operators
@every_way
@pytest.mark.parametrize(
    ("T", "every"), [(0, 64), (1, 4), (20, 7), (64, 64), (70, 1), (150, 64), (150, 100), (150, 128)]
)
def test_chunk_states_are_the_states_on_the_way(name, way, T, every):
    dtype = best(way)[0]
    if way == "triton" and not GPU and every == 1:
        T = 5
    *inputs, s0 = draw(name, B=2 if T < 70 else 1, T=T, way=way, dtype=dtype)
    found = call(name, [*inputs, s0], way, chunk_states=every)
    assert found[2].shape == (s0.shape[0], -(-T // every), *s0.shape[1:])
    check_outputs(found, truth(name, [*inputs, s0], chunk_states=every), dtype)


@both_operators
@every_way
def test_nothing_given_is_written_to_and_nothing_returned_is_shared(name, way):
    for T in (0, 40):
        inputs = draw(name, T=T, way=way)
        before = [x.clone() for x in inputs]
        for x in call(name, inputs, way, chunk_states=64):
            x.fill_(torch.nan)
        assert all(torch.equal(x, z) for x, z in zip(inputs, before, strict=True))


@both_operators
@every_way
@pytest.mark.parametrize("every", [None, 3, 64])
def test_no_sequence_at_all_gives_empty_results(name, way, every):
    inputs = draw(name, B=0, T=3, H=2, way=way)
    for x, want in zip(
        call(name, inputs, way, chunk_states=every), truth(name, inputs, chunk_states=every), strict=True
    ):
        assert x.shape == want.shape
    if way != "serial":
        assert [x.shape for x in gradients(name, inputs, way)] == [x.shape for x in inputs]
    inputs = draw(name, T=0, starts=2, way=way)
    found = call(name, inputs, way, cu_seqlens=[0, 0, 0])
    assert torch.equal(found[1], inputs[-1])


@both_operators
@differentiable
def test_runs_are_bit_identical(name, way):
    inputs = draw(name, B=2 if GPU else 1, T=70, way=way, dtype=WAYS[way][-1])
    first = [*call(name, inputs, way), *gradients(name, inputs, way)]
    for _ in range(20 if GPU or way == "chunked" else 1):
        again = [*call(name, inputs, way), *gradients(name, inputs, way)]
        assert all(torch.equal(x, z) for x, z in zip(again, first, strict=True))
