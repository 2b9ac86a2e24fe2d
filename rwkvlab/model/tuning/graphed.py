"""Passes that gradients go back through, on a GPU: a shape that comes again is replayed both ways from CUDA graphs.

A pass of a thousand tokens is several thousand launches, and the host takes longer to make them than the GPU to work.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rwkvlab.model.parts import Flow, Way, rows_at

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

KEPT = 8  # recordings; the one not used for longest goes first
TOKENS = 2**15  # of a batch, beyond which the GPU has so much to do that launches cost nothing
LEAST = 16  # rows are filled up to a multiple of this, or of an eighth of their length's power of two

Read = Callable[[Tensor, Sequence[Tensor]], Tensor]  # tokens [B,T] and the tensors of a flow -> x [B,T,C]


def length(tokens: int) -> int:
    """Return to how many tokens rows of `tokens` are filled up, an eighth more at most: so that shapes come again."""
    step = max(LEAST, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // step) * step


class GraphedPass:
    """`Model.hidden` of one way: on a GPU, under autograd, in a CUDA graph from the second time on that a shape comes.

    The first time everything is loaded and compiled. Where memory does not suffice for a recording, or a pass cannot be
    recorded, it goes on without. One thread at a time may use it.
    """

    def __init__(self, model: Model, way: Way | None = None) -> None:
        self._model, self._way = model, way or Way(backend=model._backend)
        self._known: OrderedDict[tuple[Any, ...], Recording | None] = OrderedDict()
        self._pool: Any = None
        self._most = TOKENS if model.device.type == "cuda" and self._way.plain else 0

    def hidden(self, tokens: Tensor, flow: Flow, at: Tensor) -> Tensor:
        """Read tokens [B,T] from `flow`; returns [N,C] for the N tokens of a mask [B,T], for `Model.head`.

        What `flow` then holds is not said. Gradients of one pass must be asked for before the next pass of its shape.
        """
        given = [*flow.wkv, *flow.att, *flow.ffn]
        graph = torch.is_grad_enabled() and any(x.requires_grad for x in given)
        rows, many = tokens.shape[0], length(tokens.shape[1])
        if not graph or rows * many > self._most:
            return self._model.hidden(tokens, flow, at, self._way)
        more = (0, many - tokens.shape[1])
        tokens, at = F.pad(tokens, more), F.pad(at, more)
        recording = self._recorded(tokens, given)
        if recording is None:
            return self._model.hidden(tokens, flow, at, self._way)
        x: Tensor = _Replayed.apply(recording, tokens, *given)  # type: ignore[no-untyped-call]
        return rows_at(x, at)

    def _recorded(self, tokens: Tensor, given: Sequence[Tensor]) -> Recording | None:
        """Return the recording of a shape; None the first time, and where there can be none."""
        key = (*tokens.shape, *(x.requires_grad for x in given))
        first = key not in self._known
        found = self._known.setdefault(key, None)
        self._known.move_to_end(key)
        if first:
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        elif found is None:
            found = self._known[key] = self._record(tokens, given)
        return found

    def _record(self, tokens: Tensor, given: Sequence[Tensor]) -> Recording | None:
        layers = self._model.dims.L

        def read(tokens: Tensor, tensors: Sequence[Tensor]) -> Tensor:
            parts = (list(tensors[at : at + layers]) for at in range(0, 3 * layers, layers))
            return self._model.passed(tokens, Flow(*parts), self._way)  # type: ignore[arg-type]

        try:
            with torch.cuda.device(self._model.device):
                found = Recording(read, tokens, given, self._pool)
        except torch.OutOfMemoryError:
            self._most = tokens.numel() - 1
            return None
        except RuntimeError as error:
            self._most = 0
            reason = str(error).split("\n")[0]
            warnings.warn(f"tuning goes on without a CUDA graph, more slowly: {reason}", RuntimeWarning, stacklevel=6)
            return None
        self._pool = self._pool or found.pool
        return found


class Recording:
    """A pass of one shape and its way back, recorded on buffers of their own.

    Recordings share the memory that they work in: each is replayed forward and back before the next one is.
    """

    def __init__(self, read: Read, tokens: Tensor, given: Sequence[Tensor], pool: Any) -> None:
        """Record `read(tokens, given)` for tensors like these. Raises what PyTorch raises."""
        device = given[0].device
        self._tokens = torch.zeros(tokens.shape, dtype=torch.int64, device=device)
        self._given = [torch.zeros_like(x).requires_grad_(x.requires_grad) for x in given]
        self._graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        record = partial(torch.cuda.graph, capture_error_mode="thread_local")  # other threads may allocate meanwhile
        with torch.enable_grad(), record(self._graphs[0], pool=pool):
            x = read(self._tokens, self._given)
        self.pool = pool or self._graphs[0].pool()
        self._slope = torch.zeros_like(x)
        with record(self._graphs[1], pool=self.pool):
            self._gradients = torch.autograd.grad(x, [x for x in self._given if x.requires_grad], self._slope)
        self._x, self._turn = x.detach(), 0

    def forward(self, tokens: Tensor, given: Sequence[Tensor]) -> tuple[Tensor, int]:
        """Return x [B,T,C], which the next replay overwrites, and the number of this one."""
        with torch.no_grad():
            self._tokens.copy_(tokens, non_blocking=True)
            torch._foreach_copy_(self._given, list(given))
        self._graphs[0].replay()
        self._turn += 1
        return self._x.detach(), self._turn

    def backward(self, slope: Tensor, turn: int) -> list[Tensor]:
        """Return the gradients of what requires them, given that of x. Raises RuntimeError after another replay."""
        if turn != self._turn:
            raise RuntimeError("gradients of a pass must be asked for before the next pass of its shape")
        self._slope.copy_(slope)
        self._graphs[1].replay()
        found = [torch.empty_like(x) for x in self._gradients]
        torch._foreach_copy_(found, list(self._gradients))
        return found


class _Replayed(torch.autograd.Function):
    """A recording as a function of the tensors that it begins from."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, tokens: Tensor, *given: Tensor) -> Tensor:
        ctx.recording = recording
        x, ctx.turn = recording.forward(tokens, given)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        found = iter(ctx.recording.backward(slope, ctx.turn))
        return None, None, *(next(found) if need else None for need in ctx.needs_input_grad[2:])
