"""The memory that a run of tuning needs: estimated before it starts, and set against what is free."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rwkvlab.errors import TuneError
from rwkvlab.model.memory import HOPELESS, free_memory
from rwkvlab.model.parts import Way
from rwkvlab.model.tuning.graphed import TOKENS
from rwkvlab.model.tuning.loss import PIECE
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

PROBES = (64, 128)  # tokens that are read to see what is kept of each for the way back
STATES = 5  # the state that is trained, its gradient, what Adam keeps of it, the best so far
FLOWS = {"cpu": 3}  # of each row: the state at the start, at the end, and its gradient
GRAPHED = 5  # on a GPU a CUDA graph keeps the start and the gradient too
# Beyond what is kept for the way back: where memory is cut into pieces (measured on a CPU with glibc: a third), and
# with checkpointing one layer on the way back, with what it works with.
SPARE = {"cpu": 1.3}
LAYER_BACK = 2.0


def tuning_memory(
    model: Model, batch: int, tokens: int, *, counted: int | None = None, teacher: bool = False,
    checkpointing: bool | None = None, held_out: int = 0,
) -> int:  # fmt: skip
    """Return about how many bytes `tune` needs beside the weights at its peak, for batches of rows of so many tokens.

    What the model keeps of a token for the way back is measured by reading 64 and 128 tokens; the rest is arithmetic.
    counted: tokens of a batch that the loss counts (None: all); teacher: whether there is one; checkpointing as in
    `tune`; held_out: tokens of a batch of held-out examples, of which nothing is kept beyond a layer. On a CPU the peak
    of the process was measured at 0.7 to 1.4 times this: how much depends on how the system hands out memory. Raises
    ArgError.
    """
    batch = int(check_range("batch", batch, 1, 10**7, whole=True))
    tokens = int(check_range("tokens", tokens, 1, 10**9, whole=True))
    most = batch * tokens
    counted = most if counted is None else int(check_range("counted", counted, 1, most, whole=True))
    held_out = int(check_range("held_out", held_out, 0, 10**15, whole=True))
    dims, where, size = model.dims, model.device.type, model.dtype.itemsize
    again = recomputes(model, checkpointing)
    few, many = (_kept(model, count) for count in PROBES)
    token = max(0, many - few) / (PROBES[1] - PROBES[0])  # bytes of all layers
    layer = token / dims.L
    # of a layer that is computed again, what enters it is kept: x and, of RWKV-7, the first layer's values
    entering = 2 * dims.L * dims.C * size + LAYER_BACK * layer
    per_token = entering if again else SPARE.get(where, 1.1) * token + layer
    per_token += (layer if teacher else 0) + (2 * dims.C * size if where == "cuda" else 0)  # x and its gradient
    graphed = token * min(most, TOKENS) if where == "cuda" and not again else 0  # what CUDA graphs keep for themselves
    state = 4 * (dims.L * dims.H * dims.V * dims.K + 2 * dims.L * dims.C)
    states = STATES + FLOWS.get(where, GRAPHED) * batch
    logits = min(counted, max(1, PIECE // dims.vocab)) * dims.vocab * 4 * (8 if teacher else 4)
    training = most * per_token + graphed + 2 * counted * dims.C * size
    return int(max(training, held_out * (layer + 2 * dims.C * size)) + states * state + logits)


def recomputes(model: Model, checkpointing: bool | None) -> bool:
    """Whether activations are computed again on the way back: as was said, else where the model is on a GPU."""
    return model.device.type == "cuda" if checkpointing is None else bool(checkpointing)


def check_memory(model: Model, needed: int, what: str) -> None:
    """Warn where about `needed` bytes are more than what is free, raise TuneError where they cannot fit."""
    free = free_memory(model.device)
    if free is None or needed <= free:
        return
    text = f"tune: {what} needs about {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free on {model.device.type}"
    advice = "take a smaller batch, shorter examples or checkpointing=True"
    if needed > HOPELESS * free:
        raise TuneError(f"{text}; {advice}")
    warnings.warn(f"{text}: it may not fit; {advice}", stacklevel=5)


def _kept(model: Model, tokens: int) -> int:
    """How many bytes are kept for the way back when a text of so many tokens is read; the weights are among them."""
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address comes twice

    def pack(tensor: Tensor) -> None:  # returning the tensor would tie it to what made it, in a ring no one collects
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor.detach())

    wkv = model.zero().wkv.requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        flow = model.begin([State(wkv, like=model)])
        text = torch.zeros(1, tokens, dtype=torch.int64)
        model.hidden(text, flow, torch.ones_like(text, dtype=torch.bool), Way(backend=model._backend))
    return sum(sizes.values())
