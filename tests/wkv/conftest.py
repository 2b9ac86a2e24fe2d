"""Puts this folder on the path, for `wkv_cases`, and poisons the memory that kernels are given."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

# Elements on either side of a tensor: whole cache lines, so that alignment stays.
BAND = 256


@pytest.fixture
def poison(monkeypatch):
    """Fresh memory is full of NaN, so that what is left unwritten shows, and lies between bands that stay the same."""
    empty, buffers = torch.empty, []

    def banded(x):
        if not x.is_contiguous() or not x.is_floating_point():
            return x
        buffer = empty(x.numel() + 2 * BAND, dtype=x.dtype, device=x.device).fill_(7.0)
        inside = empty(0, dtype=x.dtype, device=x.device).set_(buffer.untyped_storage(), BAND, x.shape, x.stride())
        buffers.append(buffer)
        return inside.fill_(torch.nan)

    for maker in (torch, torch.Tensor):
        for name in ("empty", "empty_like", "new_empty"):
            if hasattr(maker, name):
                original = getattr(maker, name)
                monkeypatch.setattr(maker, name, lambda *a, make=original, **k: banded(make(*a, **k)))
    yield
    monkeypatch.undo()
    for buffer in buffers:
        assert (buffer[:BAND] == 7.0).all() and (buffer[-BAND:] == 7.0).all(), "written outside a tensor"
