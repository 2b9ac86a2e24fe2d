"""How the fused kernels are launched: the precision of their products, and kernels that start before the last ends."""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda as tl_cuda


@triton.jit
def wait_for_inputs(OVERLAP: tl.constexpr):
    """Let the next kernel be brought up, and wait for what the last one writes; weights may be loaded before."""
    if OVERLAP:
        tl_cuda.gdc_launch_dependents()
        tl_cuda.gdc_wait()


@cache
def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels: then they take tensors on the CPU."""
    return bool(triton.knobs.runtime.interpret)


@cache
def _hopper(index: int | None) -> bool:
    return torch.cuda.get_device_capability(index)[0] >= 9


def overlapped(x: Tensor) -> dict[str, Any]:
    """Launch options by which a kernel comes up while the one before ends (programmatic dependent launch, sm_90)."""
    if x.is_cuda and not interpreted() and _hopper(x.device.index):
        return {"OVERLAP": True, "launch_pdl": True}
    return {"OVERLAP": False}


def dot_type(x: Tensor) -> tl.dtype:
    """The dtype of the operands of a product of x: its own, fp32 where the interpreter would get 16 bits wrong."""
    if interpreted():
        return tl.float32
    return {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}.get(x.dtype, tl.float32)
