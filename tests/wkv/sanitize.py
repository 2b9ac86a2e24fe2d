"""Calls of every Triton kernel, to be run under a checker: `compute-sanitizer --tool memcheck python sanitize.py`.

Also with racecheck and initcheck; set PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that every tensor is an allocation of its
own, and run once without a checker first, so that the kernels are compiled.
"""

import sys

import torch
from wkv import wkv6_step, wkv7_step
from wkv_cases import call, draw, gradients

STEPS = {"wkv7": wkv7_step, "wkv6": wkv6_step}

for name, step in STEPS.items():
    for dtype in (torch.bfloat16, torch.float32)[: 1 if "--short" in sys.argv else 2]:
        for options in ({}, {"cu_seqlens": [0, 0, 70, 130], "chunk_states": 50}):
            starts = 3 if options else None
            inputs = draw(name, 1, 130, 2, 64, 64, starts=starts, dtype=dtype)
            call(name, inputs, "triton", **options)
            gradients(name, inputs, "triton", **options)
            call(
                name,
                [x[:, :5] if x.dim() == 4 and x.shape[1] == 130 else x for x in inputs[:-1]] + [inputs[-1][:1]],
                "serial",
            )
        *given, s = inputs
        step(*(x[:, 0] if x.dim() == 4 else x for x in given), s[:1].contiguous())
torch.cuda.synchronize()
print("done")
