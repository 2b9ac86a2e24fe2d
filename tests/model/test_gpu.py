"""On a CUDA GPU the models say what they say on the CPU: reading, decoding, batches, and mounted states."""

import pytest
import torch

import rwkvlab as lab

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture
def both(geometry, checkpoint_file):
    torch.backends.cuda.matmul.allow_tf32 = False
    path, _ = checkpoint_file(*geometry)
    return lab.load_model(path, device="cpu"), lab.load_model(path, device="cuda")


def close(got, want):
    return float((got.cpu() - want).abs().max() / want.std()) < 1e-3


def test_reading_decoding_and_mounting_agree_with_the_cpu(both):
    cpu, gpu = both
    state = lab.State(torch.randn(cpu.zero().wkv.shape, generator=torch.Generator().manual_seed(0)), like=cpu)
    tokens = [i * 5 % cpu.dims.vocab for i in range(90)]
    want, got = cpu.forward(tokens, state), gpu.forward(tokens, state)
    assert close(got.logits, want.logits)
    assert close(got.state.wkv, want.state.wkv)
    assert got.state.wkv.device.type == "cpu"
    for token in tokens[:5]:
        want, got = cpu.forward([token], want.state), gpu.forward([token], got.state)
        assert close(got.logits, want.logits)
    batch = gpu.forward([tokens[:20], tokens[20:40]], [None, state])
    assert close(batch.logits[1], cpu.forward(tokens[20:40], state).logits[0])


def test_the_gradient_of_the_state_agrees_with_the_cpu(both):
    grads = []
    for model in both:
        wkv = torch.randn(model.zero().wkv.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        model.forward(list(range(30)), lab.State(wkv, like=model)).logits.square().mean().backward()
        grads.append(wkv.grad)
    assert close(grads[1], grads[0])


def test_half_precision_loses_no_more_than_on_the_cpu(both, geometry, checkpoint_file):
    path, _ = checkpoint_file(*geometry)
    tokens = list(range(30))
    want = both[0].forward(tokens).logits
    for dtype in ("bf16", "fp16"):
        errors = {}
        for device in ("cpu", "cuda"):
            got = lab.load_model(path, device=device, dtype=dtype).forward(tokens).logits.cpu()
            errors[device] = float((got - want).norm() / want.norm())
        assert errors["cuda"] < 1.5 * errors["cpu"]
