"""Computing a layer's activations again on the way back: the same numbers to the last bit, in less memory."""

import pytest
import torch

from rwkvlab.model.engine import Model
from rwkvlab.model.parts import Way
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims

RANKS = {
    "x070": {"w": 8, "a": 8, "v": 8, "g": 8},
    "x060": {"maa": 8, "decay": 8},
    "x052": {},
}
LAYERS, TOKENS = 4, 70


def gradients(arch, recompute):
    """The logits, the gradients of all parts of the initial state, and the bytes that were kept for the way back."""
    dims = Dims(arch, L=LAYERS, H=2, C=32, K=16, V=16, ffn=64, vocab=50)
    model = Model(Checkpoint(dims, random_weights(dims, RANKS[arch]), "0" * 64), "random")
    kept = {}

    def keep(x):
        kept[x.data_ptr()] = x.nbytes
        return x

    flow = model.begin([None] * 3)
    starts = [
        x.normal_(generator=torch.Generator().manual_seed(0)).requires_grad_() for x in flow.wkv + flow.att + flow.ffn
    ]
    tokens = torch.randint(0, 50, (3, TOKENS), generator=torch.Generator().manual_seed(1))
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logits = model.run(tokens, flow, "all", Way(backend="chunked", recompute=recompute))
        ends = sum(x.float().square().mean() for x in flow.wkv + flow.att + flow.ffn)
    with torch.enable_grad():
        found = torch.autograd.grad(logits.float().square().mean() + ends, starts)
    return logits, found, sum(kept.values())


@pytest.mark.parametrize("arch", RANKS)
def test_gradients_are_bit_identical_and_little_is_kept(arch):
    logits, want, much = gradients(arch, recompute=False)
    again, found, little = gradients(arch, recompute=True)
    assert torch.equal(logits, again)
    assert all(x.abs().sum() > 0 for x in want)
    assert all(torch.equal(x, z) for x, z in zip(found, want, strict=True))
    assert little < much / 3
