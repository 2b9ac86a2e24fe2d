"""The gradient of a state where answers alone count: it comes back through a long prompt that has little of its own."""

import pytest
import torch
from wkv import wkv7

from rwkvlab.bundled.shelf import bundled
from rwkvlab.model import rwkv7
from rwkvlab.states.state import State
from rwkvlab.tasks.styleworld import world_tasks

pytest.importorskip("triton")
COUNTED = 8


def operands_and_slopes():
    """What each layer's operator is fed by a long prompt of the bundled RWKV-7, and the gradient of what it gives."""
    model, _ = bundled("rwkv7")
    (task,) = world_tasks(8, held_out=False, styles=("emoji",))
    ids = torch.tensor([model.encode("".join(map("".join, task.examples())))[:133]])
    kept = []

    def seen(r, w, k, v, a, b, s0, **options):
        y, s = wkv7(r, w, k, v, a, b, s0, **options)
        y.retain_grad()
        kept.append(([x.detach() for x in (r, w, k, v, a, b, s0)], y))
        return y, s

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rwkv7, "wkv7", seen)
        wkv = torch.zeros(model.zero().wkv.shape, requires_grad=True)
        logits = model.forward(ids[:, :-1], State(wkv, like=model)).logits[0, -COUNTED:]
        torch.nn.functional.cross_entropy(logits, ids[0, -COUNTED:].to(logits.device)).backward()
    return [(given, y.grad) for given, y in kept]


def gradient(run, given, slope, *, dtype, decays):
    """That of s0; the decays and s0 keep a dtype of their own, as models have them."""
    given = [x.to(decays if i in (1, 6) else dtype).requires_grad_() for i, x in enumerate(given)]
    y = run(*given)[0]
    return torch.autograd.grad(y, given[6], slope.to(y.dtype))[0].double()


def test_the_kernels_keep_the_digits_of_every_head():
    from wkv.wkv7.triton_op import wkv7_triton

    half = {"dtype": torch.float16, "decays": torch.float32}
    layers = operands_and_slopes()
    assert layers[-1][1][:, : -COUNTED - 1].abs().max() == 0  # the last layer's prompt has none at all
    for given, slope in (layers[0], layers[-1]):
        slope = slope.half()
        rounded = [x if i in (1, 6) else x.half() for i, x in enumerate(given)]
        found = gradient(wkv7_triton, rounded, slope, **half)
        want = gradient(lambda *x: wkv7(*x, backend="naive"), rounded, slope, dtype=torch.float64, decays=torch.float64)
        off, size = ((x.norm(dim=(-2, -1))) for x in (found - want, want))
        assert size.min() > 0 and (off / size).max() <= 4e-4
