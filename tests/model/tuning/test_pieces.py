"""Losses of logits made in pieces: the same as of all at once, and only one piece of logits is ever held."""

import pytest
import torch
import torch.nn.functional as F

from rwkvlab.model.tuning import loss
from rwkvlab.model.tuning.loss import cross_entropy, piecewise


def with_gradient(tiny, reduction, monkeypatch, piece):
    monkeypatch.setattr(loss, "PIECE", piece * tiny.dims.vocab)
    held = []

    def of(logits, answers):
        held.append(len(logits))
        return F.cross_entropy(logits, answers, reduction=reduction)

    g = torch.Generator().manual_seed(0)
    x = torch.randn(23, tiny.dims.C, generator=g, dtype=tiny.dtype).requires_grad_()
    answers = torch.randint(tiny.dims.vocab, (23,), generator=g)
    found = piecewise(tiny, of, x, answers)
    (found * torch.arange(1.0, 24)).sum().backward() if found.dim() else found.backward()
    return found.detach(), x.grad, held


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_pieces_give_what_all_at_once_gives(tiny, monkeypatch, reduction):
    want, slope, held = with_gradient(tiny, reduction, monkeypatch, 23)
    assert held == [23]
    found, again, held = with_gradient(tiny, reduction, monkeypatch, 5)
    assert sorted(held) == sorted([5, 5, 5, 5, 3] * 2)
    assert found.shape == want.shape and slope.abs().sum() > 0
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("piece", [23, 5])
def test_the_cross_entropy_and_its_gradient_are_those_of_all_logits(tiny, monkeypatch, piece):
    monkeypatch.setattr(loss, "PIECE", piece * tiny.dims.vocab)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(23, tiny.dims.C, generator=g, dtype=tiny.dtype).requires_grad_()
    answers = torch.randint(tiny.dims.vocab, (23,), generator=g)
    found = cross_entropy(tiny, x, answers)
    want = F.cross_entropy(tiny.head(x), answers, reduction="sum")
    torch.testing.assert_close(found, want, rtol=1e-6, atol=0)
    slopes = (torch.autograd.grad(one / 7, x)[0] for one in (found, want))
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        assert torch.equal(cross_entropy(tiny, x, answers), found)
