"""CUDA graphs of the decode step: a batch that goes on token by token moves into fixed buffers and is replayed."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rwkvlab.model.capture import recorded
from rwkvlab.model.parts import Flow
from rwkvlab.shapes import Dims

SLOTS = 2  # batches that are decoded by turns without being copied back and forth
KEPT = 8  # graphs of a slot, for as many batch sizes; the one not used for longest goes first
LARGE = 2**30  # bytes of states that are not kept for a batch of less than a quarter of the rows

Step = Callable[[Tensor, Flow], Tensor]  # tokens [B,1] and a flow, moved on -> x [B,1,C]


def bucket(rows: int) -> int:
    """Return for how many rows a batch of `rows` is captured: at most 7 more, or a quarter more beyond 64."""
    if rows <= 2:
        return rows
    step = 4 if rows <= 8 else 8 if rows <= 64 else 16 if rows <= 128 else 32 if rows <= 256 else 64
    return -(-rows // step) * step


class Slot:
    """Buffers for the states of up to `rows` texts, and the graphs that move them on."""

    def __init__(self, step: Step, dims: Dims, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Allocate the buffers, all zeros. Raises torch.OutOfMemoryError."""
        self._step, self.rows = step, rows
        with torch.inference_mode(False):

            def zeros(*shape: int, of: torch.dtype = dtype) -> list[Tensor]:
                return [torch.zeros(rows, *shape, dtype=of, device=device) for _ in range(dims.L)]

            self._whole = Flow(zeros(dims.H, dims.V, dims.K, of=torch.float32), zeros(dims.C), zeros(dims.C))
            self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._graphs: OrderedDict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = OrderedDict()
        self._pool: Any = None
        self._owner: weakref.ref[Flow] | None = None
        self._views = self._whole
        self._stream = torch.cuda.current_stream(device)
        self.thread = 0

    @property
    def owner(self) -> Flow | None:
        """Whose states lie here; None where that flow is gone."""
        return None if self._owner is None else self._owner()

    @property
    def bytes(self) -> int:
        """The size of the states."""
        return sum(layer.numel() * layer.element_size() for layer in self._whole.wkv)

    def has(self, rows: int) -> bool:
        """Whether a batch of so many rows can be replayed without a new capture."""
        return bucket(rows) in self._graphs

    def holds(self, flow: Flow) -> bool:
        """Whether the tensors of `flow` are the buffers here: its states came in, and none was put in its place."""
        return self.owner is flow and all(x is y for x, y in zip(_tensors(flow), _tensors(self._views), strict=True))

    def _join(self) -> None:
        """Let the present stream wait for what another one, used before, still does to the buffers."""
        here = torch.cuda.current_stream(self._tokens.device)
        if here != self._stream:
            here.wait_stream(self._stream)
            self._stream = here

    def take(self, flow: Flow) -> None:
        """Move the states of `flow` into the buffers; its tensors become views of them."""
        self.give_back()
        rows = len(flow.wkv[0])
        views = _first(self._whole, rows)
        for into, given in zip(_tensors(views), _tensors(flow), strict=True):
            into.copy_(given)
        self._views, self._owner, self.thread = views, weakref.ref(flow), threading.get_ident()
        flow.wkv, flow.att, flow.ffn = list(views.wkv), list(views.att), list(views.ffn)

    def give_back(self) -> None:
        """Where the owner still lives, give it tensors of its own in place of the buffers."""
        self._join()
        flow, views = self.owner, self._views
        if flow is not None:
            flow.wkv, flow.att, flow.ffn = (
                [x.clone() if x is y else x for x, y in zip(mine, here, strict=True)]
                for mine, here in ((flow.wkv, views.wkv), (flow.att, views.att), (flow.ffn, views.ffn))
            )
        self._owner = None

    def capture(self, rows: int) -> None:
        """Record the step of a batch of `rows`; the buffers hold nobody's states then. Raises what PyTorch raises."""
        self.give_back()
        size = bucket(rows)
        self._graphs[size] = self._record(self._tokens[:size], _first(self._whole, size))
        while len(self._graphs) > KEPT:
            self._graphs.popitem(last=False)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, tokens: Tensor, views: Flow) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        here, aside = torch.cuda.current_stream(tokens.device), torch.cuda.Stream(tokens.device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._run(tokens, views)  # what is loaded and compiled at first use cannot be recorded
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with recorded(graph, self._pool, tokens.device):
            x = self._run(tokens, views)
        self._pool = self._pool or graph.pool()
        return graph, x

    def _run(self, tokens: Tensor, views: Flow) -> Tensor:
        """One step, whatever of the flow it replaces rather than writes in place put back into the buffers."""
        flow = Flow(list(views.wkv), list(views.att), list(views.ffn))
        x = self._step(tokens, flow)
        for into, new in zip(_tensors(views), _tensors(flow), strict=True):
            if new is not into:
                into.copy_(new)
        return x

    def replay(self, tokens: Tensor) -> Tensor:
        """Move the owner's states on by tokens [B,1]; returns x [B,1,C], which the next replay overwrites."""
        self._join()
        size = bucket(len(tokens))
        graph, x = self._graphs[size]
        self._graphs.move_to_end(size)
        self._tokens[: len(tokens)].copy_(tokens, non_blocking=True)
        graph.replay()
        return x[: len(tokens)]


class Graphs:
    """The decode step of one model: as it is for a flow's first token, in a CUDA graph from the second on.

    States live in buffers of the slot then, in place. Two batches can take turns; a third one's states are copied in
    and out, and those of another thread are left alone: it goes on without a graph. Where memory does not suffice for a
    batch, or a step cannot be recorded, it goes without one too.
    """

    def __init__(self, step: Step, dims: Dims, device: torch.device, dtype: torch.dtype) -> None:
        """Take the step: without autograd, on fixed shapes, and without a wait for the GPU."""
        self._step, self._dims, self._device, self._dtype = step, dims, device, dtype
        self._slots: list[Slot] = []
        self._lock = threading.Lock()
        self._refused = 2**62  # rows from which memory does not suffice
        self._broken = False

    def step(self, tokens: Tensor, flow: Flow, use: Callable[[Tensor], Tensor | None]) -> Tensor | None:
        """Move `flow` on by tokens [B,1]; returns what `use` makes of x [B,1,C] (which is overwritten afterwards)."""
        rows = len(tokens)
        if torch.cuda.is_current_stream_capturing():
            return use(self._step(tokens, flow))
        with self._lock, torch.cuda.device(self._device):
            slot = next((slot for slot in self._slots if slot.holds(flow) and slot.has(rows)), None)
            if slot is None and not self._broken and rows < self._refused:
                slot = self._prepared(flow, rows)
            if slot is not None:
                return use(slot.replay(tokens))
        flow.steps += 1
        return use(self._step(tokens, flow))

    def _prepared(self, flow: Flow, rows: int) -> Slot | None:
        """Return a slot with the graph and the states of `flow`; None where it goes without, or it is too early."""
        if flow.steps == 0 and not any(slot.has(rows) and slot.owner is None for slot in self._slots):
            return None
        try:
            slot = self._chosen(flow, rows)
            if slot is not None and not slot.has(rows):
                slot.capture(rows)
        except torch.OutOfMemoryError:
            self._refused, slot = rows, None
        except RuntimeError as error:
            self._broken, slot = True, None
            reason = str(error).split("\n")[0]
            warnings.warn(f"decoding goes on without a CUDA graph, more slowly: {reason}", RuntimeWarning, stacklevel=5)
        if slot is not None:
            slot.take(flow)
        return slot

    def _chosen(self, flow: Flow, rows: int) -> Slot | None:
        """Return a slot that is large enough and may be used by this thread, a new one if need be."""
        size, me = bucket(rows), threading.get_ident()
        mine = [slot for slot in self._slots if slot.owner is flow]
        free = [slot for slot in self._slots if slot.owner is None]
        free.sort(key=lambda slot: (slot.rows < size, not slot.has(rows)))
        room = [None] if len(self._slots) < SLOTS else []
        others = [slot for slot in self._slots if slot.owner is not None and slot.thread == me]
        choice = [*mine, *free, *room, *others]
        if not choice:
            return None
        slot = choice[0]
        if slot is not None:
            # the one used last is taken last
            self._slots.remove(slot)
            if slot.rows < size or (slot.rows > 4 * size and slot.bytes > LARGE):
                slot.give_back()
                slot = None
        if slot is None:
            slot = Slot(self._step, self._dims, size, self._device, self._dtype)
        self._slots.append(slot)
        return slot


def _first(flow: Flow, rows: int) -> Flow:
    wkv, att, ffn = ([layer[:rows] for layer in layers] for layers in (flow.wkv, flow.att, flow.ffn))
    return Flow(wkv, att, ffn)


def _tensors(flow: Flow) -> list[Tensor]:
    return [*flow.wkv, *flow.att, *flow.ffn]
