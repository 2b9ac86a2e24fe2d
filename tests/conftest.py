"""Shared fixtures; the first lines choose Triton's interpreter, before any kernel module is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# the workers of `make test` share the cores: one thread each, since two threads on a busy core wait for one another
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
