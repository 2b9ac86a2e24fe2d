"""Passes that gradients go back through, on a GPU: a shape that comes again is replayed both ways from CUDA graphs.

A pass of a thousand tokens is several thousand launches, and the host takes longer to make them than the GPU to work.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rwkvlab.model.capture import recorded
from rwkvlab.model.parts import Flow, Way, rows_at

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

KEPT = 32  # recordings
TOKENS = 2**15  # of a batch, beyond which the GPU has so much to do that launches cost nothing; twice that in all
LEAST = 16  # rows are filled up to a multiple of this, or of an eighth of their length's power of two

Result = TypeVar("Result")
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
        self._seen: set[tuple[Any, ...]] = set()
        self._known: dict[tuple[Any, ...], Recording] = {}
        self._pool: Any = None
        self.turn = 0  # replays so far
        self._most = self._fits = TOKENS if model.device.type == "cuda" and self._way.plain else 0

    def hidden(self, tokens: Tensor, flow: Flow, at: Tensor) -> Tensor:
        """Read tokens [B,T] from `flow`; returns [N,C] for the N tokens of a mask [B,T], for `Model.head`.

        What `flow` then holds is not said. The gradients of one pass must be asked for before the next pass.
        """
        given = [*flow.wkv, *flow.att, *flow.ffn]
        graph = torch.is_grad_enabled() and any(x.requires_grad for x in given)
        rows, many = tokens.shape[0], length(tokens.shape[1])
        if not graph or rows * many > self._most:  # else filled up, with a recording and without: to the same bits
            return self._model.hidden(tokens, flow, at, self._way)
        more = (0, many - tokens.shape[1])
        tokens, at = F.pad(tokens, more), F.pad(at, more)
        recording = self._recorded(tokens, given)
        if recording is None:
            return self._model.hidden(tokens, flow, at, self._way)
        x: Tensor = _Replayed.apply(self, recording, tokens, *given)  # type: ignore[no-untyped-call]
        return rows_at(x, at)

    def close(self) -> bool:
        """Give the memory of all recordings back and make no more; returns whether there were any."""
        had, self._fits = bool(self._known), 0
        self._known, self._pool = {}, None
        return had

    def _recorded(self, tokens: Tensor, given: Sequence[Tensor]) -> Recording | None:
        """Return the recording of a shape; None the first time, and where there is none.

        None is ever dropped for another: to record takes as long as some passes do.
        """
        key = (*tokens.shape, *(x.requires_grad for x in given))
        tokens_of_all = tokens.numel() + sum(rows * many for rows, many, *_ in self._known)
        room = len(self._known) < KEPT and tokens_of_all <= 2 * TOKENS and tokens.numel() <= self._fits
        if key in self._seen and key not in self._known and room:
            recording = self._record(tokens, given)
            if recording is not None:
                self._known[key] = recording
        self._seen.add(key)
        return self._known.get(key)

    def _record(self, tokens: Tensor, given: Sequence[Tensor]) -> Recording | None:
        layers = self._model.dims.L

        def read(tokens: Tensor, tensors: Sequence[Tensor]) -> Tensor:
            parts = (list(tensors[at : at + layers]) for at in range(0, 3 * layers, layers))
            return self._model.passed(tokens, Flow(*parts), self._way)  # type: ignore[arg-type]

        others = [one for one in self._known.values() if one.begins_like(given)]
        try:
            found = Recording(read, tokens, given, self._pool, *others[:1])
        except torch.OutOfMemoryError:
            self._fits = tokens.numel() - 1
            return None
        except RuntimeError as error:
            self.close()
            reason = str(error).split("\n")[0]
            warnings.warn(f"tuning goes on without a CUDA graph, more slowly: {reason}", RuntimeWarning, stacklevel=1)
            return None
        self._pool = self._pool or found.pool
        return found


def with_room(passes: GraphedPass | None, work: Callable[[], Result]) -> Result:
    """Return `work()`; where memory does not suffice for it beside the recordings, it is begun anew without them."""
    try:
        return work()
    except torch.OutOfMemoryError:
        if passes is None or not passes.close():
            raise
    torch.cuda.empty_cache()  # only now, the error being gone, nothing of the first try is held
    return work()


class Recording:
    """A pass of one shape and its way back, recorded on buffers of their own.

    Recordings share the memory that they work in, and those of as many rows the buffers of what they begin from and of
    its gradients: each is replayed forward and back before the next one is.
    """

    def __init__(
        self, read: Read, tokens: Tensor, given: Sequence[Tensor], pool: Any, other: Recording | None = None
    ) -> None:
        """Record `read(tokens, given)` for tensors like these; `other` lends its buffers. Raises what PyTorch does."""
        self._tokens = torch.zeros(tokens.shape, dtype=torch.int64, device=given[0].device)
        if other is None:
            self._given = [torch.zeros_like(x).requires_grad_(x.requires_grad) for x in given]
            self._gradients = [torch.zeros_like(x) for x in given if x.requires_grad]
        else:
            self._given, self._gradients = other._given, other._gradients
        self._graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.enable_grad(), recorded(self._graphs[0], pool, given[0].device):
            x = read(self._tokens, self._given)
        self.pool = pool or self._graphs[0].pool()
        self._slope = torch.zeros_like(x)
        with recorded(self._graphs[1], self.pool, given[0].device):
            found = torch.autograd.grad(x, [x for x in self._given if x.requires_grad], self._slope)
            _copy(self._gradients, found)
        self._x = x.detach()

    def begins_like(self, given: Sequence[Tensor]) -> bool:
        """Whether it begins from tensors of the same shapes, and the same ones require gradients."""
        pairs = zip(self._given, given, strict=True)
        return all(x.shape == y.shape and x.requires_grad == y.requires_grad for x, y in pairs)

    def forward(self, tokens: Tensor, given: Sequence[Tensor]) -> Tensor:
        """Return x [B,T,C], which the next replay overwrites."""
        with torch.no_grad():
            self._tokens.copy_(tokens, non_blocking=True)
            _copy(self._given, given)
        self._graphs[0].replay()
        return self._x.detach()

    def backward(self, slope: Tensor) -> list[Tensor]:
        """Return the gradients of what requires them, given that of x."""
        self._slope.copy_(slope)
        self._graphs[1].replay()
        found = [torch.empty_like(x) for x in self._gradients]
        _copy(found, self._gradients)
        return found


def _copy(into: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy tensors of the same dtypes and shapes: all of a dtype in one launch."""
    for dtype in dict.fromkeys(x.dtype for x in into):
        pairs = [(x, y) for x, y in zip(into, tensors, strict=True) if x.dtype is dtype]
        torch._foreach_copy_([x for x, _ in pairs], [y for _, y in pairs])


class _Replayed(torch.autograd.Function):
    """A recording as a function of the tensors that it begins from."""

    @staticmethod
    def forward(ctx: Any, passes: GraphedPass, recording: Recording, tokens: Tensor, *given: Tensor) -> Tensor:
        passes.turn += 1
        ctx.passes, ctx.recording, ctx.turn = passes, recording, passes.turn
        return recording.forward(tokens, given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.turn != ctx.passes.turn:
            raise RuntimeError("the gradients of a pass must be asked for before the next pass")
        found = iter(ctx.recording.backward(slope))
        return None, None, None, *(next(found) if need else None for need in ctx.needs_input_grad[3:])
