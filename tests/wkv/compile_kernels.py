"""Compiles every Triton kernel for NVIDIA cards that are not there: `compile_kernels.py 86 90 80:1` prints JSON lines.

`:1` stops after the first case.

A driver that knows a target and its shared memory lets Triton compile; the host functions run on CPU tensors, and each
launch is kept from happening. One line a compiled kernel: capability, case, kernel, bytes of shared memory. The
assembler, which takes most of the time, runs for capability 90 alone; for the others the PTX is the end.
"""

import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.jit import JITFunction
from wkv.layer.triton_decode import decode_one_triton, decode_triton, read_out_triton
from wkv.layer.triton_gates import gates_triton
from wkv.layer.triton_gates_back import gates_back_triton, read_out_back_triton
from wkv.layer.triton_matrix import gemv_triton, lora_back_triton, lora_down_triton
from wkv.layer.triton_mix import norm_mix_triton, squared_relu_triton
from wkv.layer.triton_mix_back import norm_mix_back_triton, squared_relu_back_triton
from wkv.wkv6.triton_op import wkv6_triton
from wkv.wkv6.triton_serial import wkv6_serial
from wkv.wkv6.triton_step import wkv6_step_triton
from wkv.wkv7.triton_op import wkv7_triton
from wkv.wkv7.triton_serial import wkv7_serial
from wkv.wkv7.triton_step import wkv7_step_triton

CASES = {"bf16 K=V=64": (torch.bfloat16, 64), "fp32 K=V=64": (torch.float32, 64), "bf16 K=V=128": (torch.bfloat16, 128)}
OPERATORS = {
    "wkv7": (wkv7_triton, wkv7_serial, wkv7_step_triton),
    "wkv6": (wkv6_triton, wkv6_serial, wkv6_step_triton),
}
# KiB of shared memory that a program may have: CUDA C++ Programming Guide, compute capabilities
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
capability = 0


class Utilities:
    """The part of a driver that knows its devices."""

    def get_device_properties(self, device):
        return {"max_shared_mem": 1024 * SHARED[device]}


class Driver:
    """What Triton asks before it compiles; every capability is a device of its own, and so has its own kernels."""

    utils = Utilities()

    def get_current_device(self):
        return capability

    def get_current_stream(self, device=None):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", capability, 32)


def operators(dtype, N):
    """Both ways at a few and at many heads, forward alone, token by token, and one step."""
    for name, (chunked, serial, step) in OPERATORS.items():
        for B in (1, 128):
            r, w, k, v, a, b = (torch.zeros(B, 1, 1, N, dtype=dtype) for _ in range(6))
            rest = [a, b] if name == "wkv7" else [torch.zeros(1, N, dtype=dtype)]
            inputs = [r, w, k, v, *rest, torch.zeros(B, 1, N, N)]
            chunked(*inputs)
            recorded = [x.clone().requires_grad_() for x in inputs]
            outputs = chunked(*recorded)[:2]
            torch.autograd.grad(outputs, recorded, [torch.zeros_like(x) for x in outputs])
        serial(*inputs)
        step(*(x[:, 0] if x.dim() == 4 and x is not inputs[-1] else x for x in inputs))


def layer(dtype, N):
    """The parts around the operator at one width."""
    C, ranks = 4 * N, (64, 64, 64, 128)
    x, vectors, s = torch.zeros(1, C, dtype=dtype), torch.zeros(8, C, dtype=dtype), torch.zeros(1, 4, N, N)
    up = torch.zeros(sum(ranks), C, dtype=dtype)
    act = torch.zeros(1, sum(ranks), dtype=dtype)
    weight = torch.ones(C, dtype=dtype)
    norm_mix_triton(x[None], x, weight, weight, torch.zeros(6, C, dtype=dtype), 1e-5, False)
    lora_down_triton(torch.zeros(6, 1, C, dtype=dtype), up, ranks)
    w, k, v, a, b, g = gates_triton(x, x, x, act, up, vectors, ranks, N)
    read_out_triton(x, x, k, v, g, vectors, N, 1e-5)
    decode_triton(x, w, k, v, a, b, g, s, vectors, 1e-5)
    decode_one_triton(torch.zeros(1, 3 * C + sum(ranks), dtype=dtype), x, up, s, vectors, ranks, 1e-5)
    gemv_triton(x, torch.zeros(C, C, dtype=dtype), ranks=None, square=False, onto=None, dtype=None)
    squared_relu_triton(x)
    for n in (1, 6):
        norm_mix_back_triton(x[None], weight, up[:n], torch.zeros(n, 1, 1, C, dtype=dtype), x, x[None], 1e-5)
    for first in (None, x):
        gates_back_triton(x, x, first, act, up, vectors, ranks, N, w, w, x, x, x, x, (x, x), up[:4].view(4, 1, C))
    lora_back_triton(up[:4].view(4, 1, C), act, up, ranks)
    read_out_back_triton(x, x, x, x, x, vectors, N, x, 1e-5, x)
    squared_relu_back_triton(x, x)


def main():
    """Compile for the capabilities named."""
    global capability
    run, assemble, seen = JITFunction.run, CUDABackend.make_cubin, set()

    def make_cubin(self, src, metadata, options, capability):
        return assemble(self, src, metadata, options, capability) if capability == 90 else b"not assembled"

    def compile_only(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        line = json.dumps([capability, case, kernel.metadata.name, kernel.metadata.shared])
        if line not in seen:
            print(line, flush=True)
        seen.add(line)

    triton.runtime.driver.set_active(Driver())
    JITFunction.run, CUDABackend.make_cubin = compile_only, make_cubin
    for word in sys.argv[1:]:
        name, _, cases = word.partition(":")
        capability = int(name)  # the driver reads it
        for case, (dtype, N) in list(CASES.items())[: int(cases or len(CASES))]:  # noqa: B007
            operators(dtype, N)
            layer(dtype, N)


if __name__ == "__main__":
    main()
