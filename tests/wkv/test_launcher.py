"""Launching compiled kernels without Triton's own door: what is passed on, and when the door is taken after all."""

import pytest
import torch

pytest.importorskip("triton")

from wkv import triton_launcher
from wkv.triton_launcher import launch


class Compiled:
    """What Triton's door returns; notes what it is launched with."""

    def __init__(self, notes):
        self.notes = notes

    def __getitem__(self, grid):
        return lambda *args: self.notes.append((grid, args))


class Kernel:
    """A kernel of two tensors, a number of each kind, and two constants."""

    arg_names = ("x", "y", "T", "log2_e", "table", "BK", "EXACT")

    def __init__(self, compiled=True):
        self.door, self.fast, self.compiled = [], [], compiled

    def __getitem__(self, grid):
        def enter(*args, **options):
            self.door.append((grid, args, options))
            return Compiled(self.fast) if self.compiled else None

        return enter


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(triton_launcher, "_COMPILED", {})
    return Kernel()


OPTIONS = {"EXACT": False, "BK": 64, "num_stages": 1}


def test_the_second_launch_gets_tensors_numbers_and_constants_in_their_order(kernel):
    x, y = torch.zeros(8), torch.ones(8, dtype=torch.float16)
    launch(kernel, 5, x, y, 7, 1.5, None, **OPTIONS)
    ((grid, (first, *_), options),) = kernel.door
    assert grid == (5,) and first is x and options == OPTIONS and not kernel.fast
    x, y = torch.zeros(9), torch.ones(9, dtype=torch.float16)
    launch(kernel, 6, x, y, 9, 2.5, None, **OPTIONS)
    assert len(kernel.door) == 1
    ((grid, given),) = kernel.fast
    assert grid == (6, 1, 1) and given[0] is x and given[1] is y and given[2:] == (9, 2.5, None, 64, False)


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.zeros(8, dtype=torch.bfloat16)},
        {"y": torch.zeros(8)[1:]},  # not at a multiple of 16 bytes
        {"T": 1},
        {"T": 16},
        {"T": 2**31},
        {"table": torch.zeros(8, dtype=torch.int64)},
        {"EXACT": True},
        {"num_stages": 3},
    ],
)
def test_what_triton_may_compile_another_kernel_for_goes_through_its_door(kernel, change):
    args = {"x": torch.zeros(8), "y": torch.zeros(8), "T": 7, "log2_e": 1.5, "table": None}
    launch(kernel, 1, *args.values(), **OPTIONS)
    changed = {name: change.get(name, x) for name, x in (args | OPTIONS).items()}
    for again in range(2):
        launch(kernel, 1, *list(changed.values())[:5], **{name: changed[name] for name in OPTIONS})
        assert len(kernel.door) == 2 and len(kernel.fast) == again
    launch(kernel, 1, *args.values(), **OPTIONS)
    assert len(kernel.door) == 2 and len(kernel.fast) == 2


def test_an_interpreted_kernel_always_goes_through_the_door(kernel):
    kernel.compiled = False
    for count in (1, 2):
        launch(kernel, 1, torch.zeros(8), torch.zeros(8), 7, 1.5, None, **OPTIONS)
        assert len(kernel.door) == count
