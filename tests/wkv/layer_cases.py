"""Inputs of the parts of an RWKV-7 layer, and how near the fused ones must come to their plain twins in float64."""

import pytest
import torch
from wkv.layer import pack_ranks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# relative RMS against float64 on the same rounded inputs; the interpreter truncates where a GPU rounds: twice the error
ERROR = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
RANKS = pack_ranks((5, 9, 7, 100))
LN, GN = 1e-5, 64e-5

dtypes = pytest.mark.parametrize("dtype", list(ERROR), ids=lambda dtype: str(dtype)[6:])


def drawer():
    """draw(*shape, dtype) -> normal numbers, other ones at every call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape, dtype=torch.float32: torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)


def exact(*inputs):
    return [x.double() if isinstance(x, torch.Tensor) else x for x in inputs]


def agree(got, want, dtype):
    assert got.shape == want.shape
    assert float((got.double() - want).norm() / want.norm()) <= ERROR[dtype]


def gate_inputs(draw, dtype, M, H, K):
    C = H * K
    k, v, first, act = (draw(M, n, dtype=dtype) for n in (C, C, C, sum(RANKS)))
    return k, v, first, act, draw(sum(RANKS), C, dtype=dtype) / 8, draw(8, C, dtype=dtype)
