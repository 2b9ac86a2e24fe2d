"""The Triton kernels as torch sees them: ops with fake twins for tracers, autograd, plain calls where none traces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_fake
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from wkv.checks import grad_needed, sequence_lengths
from wkv.chunk_table import CHUNK, ChunkTable

LIBRARY = Library("wkv", "FRAGMENT")
# What a forward pass is asked to keep, added up: what its backward pass needs, the states before every chunk.
BACKWARD, STATES = 1, 2
Run = Callable[..., Any]


@dataclass(frozen=True)
class Kernels:
    """An operator's kernels; its inputs are `names`, of which the first is r and the fourth v, and then s0.

    Both passes are those of the operator's `triton_launch`. `saved`: given the inputs, s0 and the number of chunks,
    empty tensors like what the forward pass keeps for the backward pass beside the states. `again`: whether the states
    are there once more, so that the backward pass does without them.
    """

    name: str
    names: str
    forward: Run
    backward: Run
    saved: Callable[..., list[Tensor]]
    again: bool = False

    def run_forward(self, *args: Any) -> tuple[Tensor, ...]:
        """(*inputs, s0, starts, first, keep) -> (y, s, states, …): no states, and no more, unless named."""
        *xs, starts, first, keep = args
        xs = [aligned(x) for x in xs]
        if xs[0].numel() == 0 or xs[3].numel() == 0:  # nothing moves: the state stays
            kept = [torch.empty_like(x) for x in self.fake_forward(*args)[2:]]
            return torch.zeros_like(xs[3]), xs[-1].clone(), *kept
        return self.forward(*xs, table_of(xs[0], xs[-1], starts, first), keep)

    def op_forward(self, *args: Any) -> tuple[Tensor, ...]:
        """The same with as many outputs for any `keep`."""
        y, s, states, *more = self.run_forward(*args)
        return y, s, states, *(more or [x.new_empty(0) for x in self.fake_forward(*args)[3:]])

    def fake_forward(self, *args: Any) -> tuple[Tensor, ...]:
        """The same shapes and dtypes, computed from nothing else."""
        *xs, starts, first, keep = args
        s0, chunks = xs[-1], table_of(xs[0], xs[-1], starts, first).chunks
        there = keep & STATES or (keep and not self.again)
        states = s0.new_empty((chunks if there else 0, *s0.shape[1:]))
        more = self.saved(*xs, chunks)
        return empty_like(xs[3]), empty_like(s0), states, *(more if keep & BACKWARD else [x.new_empty(0) for x in more])

    def run_backward(self, *args: Any) -> tuple[Tensor, ...]:
        """(*inputs, states, …, dy, ds, dstates, starts, first) -> gradients of the inputs and of s0."""
        *xs, dstates, starts, first = args
        *xs, dy, ds = (aligned(x) for x in xs)
        if xs[0].numel() == 0 or xs[3].numel() == 0:
            return *(torch.zeros_like(x) for x in xs[: len(self.names)]), ds.clone()
        dstates = None if dstates is None else aligned(dstates)
        return self.backward(*xs, dy, ds, dstates, table_of(xs[0], ds, starts, first))

    def fake_backward(self, *args: Any) -> tuple[Tensor, ...]:
        """The same shapes and dtypes."""
        return tuple(empty_like(x) for x in (*args[: len(self.names)], args[-4]))


def make_operator(kernels: Kernels) -> Run:
    """Register wkv::NAME_forward and wkv::NAME_backward; returns `run_forward`, differentiable.

    A torch op costs the host ten microseconds a call and more: where nothing traces, the functions are called directly.
    """
    inputs = [f"Tensor {x}" for x in kernels.names]
    blank = torch.empty(1, 1, 1, 1)
    more = len(kernels.saved(*[blank] * (len(inputs) + 1), 0))
    tables = ["Tensor? starts", "Tensor? first"]
    kept = ["Tensor states", *(f"Tensor saved{i}" for i in range(more))]
    forward = _define(f"{kernels.name}_forward", [*inputs, "Tensor s0", *tables, "int keep"], 2 + len(kept))
    gradients = ["Tensor dy", "Tensor ds", "Tensor? dstates"]
    backward = _define(f"{kernels.name}_backward", [*inputs, *kept, *gradients, *tables], len(inputs) + 1)
    _implement(forward, kernels.op_forward, kernels.fake_forward)
    _implement(backward, kernels.run_backward, kernels.fake_backward)
    direct = _recorded(kernels, kernels.run_forward, _once(kernels, kernels.run_backward), kernels.run_backward)
    below = _below_autograd(forward), _below_autograd(backward)
    once = _once(kernels, below[1])
    _differentiate(forward, _recorded(kernels, below[0], once, backward), below[0])
    _differentiate(backward, once, below[1])

    def run(*args: Any) -> tuple[Tensor, ...]:
        tensors = args[: len(inputs) + 1]
        if traced(tensors):
            return forward(*args)
        return direct.apply(*args) if grad_needed(*tensors) else kernels.run_forward(*args)

    return run


def make_op(name: str, arguments: list[str], outputs: int, run: Run, fake: Run) -> Run:
    """Register wkv::`name`, without autograd; returns what calls it where something traces, and else `run` itself."""
    op = _define(name, arguments, outputs)
    _implement(op, run, fake)

    def call(*args: Any) -> Any:
        return (op if traced([x for x in args if isinstance(x, Tensor)]) else run)(*args)

    return call


def call_operator(
    operator: Run,
    inputs: list[Tensor],
    s0: Tensor,
    cu_seqlens: Tensor | Sequence[int] | None,
    every: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Plan the chunks, run an operator made above, and pick the kept states: (y, s, [B,n,H,V,K] or None)."""
    batch, tokens = inputs[0].shape[:2]
    lengths = sequence_lengths(cu_seqlens, batch, tokens)
    starts, first, kept = None, None, None
    if lengths is not None or (every is not None and every % CHUNK):
        plan = _plan if traced([*inputs, s0]) else _plan_once
        table, kept = plan(batch, tokens, None if lengths is None else tuple(lengths), every, inputs[0].device)
        starts, first = table.starts, table.first
    keep = BACKWARD * grad_needed(*inputs, s0) + STATES * (every is not None)
    y, s, states, *_ = operator(*(x.contiguous() for x in (*inputs, s0)), starts, first, keep)
    if every is None:
        return y, s, None
    if kept is None:
        return y, s, states.unflatten(0, (batch, (tokens + CHUNK - 1) // CHUNK))[:, :: every // CHUNK]
    if kept.numel() < states.shape[0]:
        states = states.index_select(0, kept.flatten())
    count = kept.shape[1] if batch else (tokens + every - 1) // every
    return y, s, states.unflatten(0, (batch, count))


def _plan(
    batch: int, tokens: int, lengths: tuple[int, ...] | None, every: int | None, device: torch.device
) -> tuple[ChunkTable, Tensor | None]:
    """`ChunkTable.plan` of tensors that autograd may keep."""
    with torch.inference_mode(False):
        return ChunkTable.plan(batch, tokens, None if lengths is None else list(lengths), every, device)


# The layers of a model share one plan, and its copy to the GPU waits for the GPU.
_plan_once = lru_cache(maxsize=16)(_plan)


def serial_arguments(names: str) -> list[str]:
    """Those of a serial op: its inputs, s0, and what `serial_plan` gives."""
    return [*(f"Tensor {x}" for x in names), "Tensor s0", "Tensor? cu", "Tensor? first", "SymInt every", "SymInt count"]


def serial_plan(
    r: Tensor, cu_seqlens: Tensor | Sequence[int] | None, every: int | None
) -> tuple[Tensor | None, Tensor | None, int]:
    """Where packed sequences begin [n+1], where their kept states do [n], and how many of these there are a row."""
    batch, tokens = r.shape[:2]
    lengths = sequence_lengths(cu_seqlens, batch, tokens)
    if lengths is None:
        return None, None, (tokens + every - 1) // every if every else 0
    return (_serial_tables if traced([r]) else _serial_tables_once)(tuple(lengths), every, r.device)


def _serial_tables(lengths: tuple[int, ...], every: int | None, device: torch.device) -> tuple[Tensor, Tensor, int]:
    counts = [-(-n // every) if every else 0 for n in lengths]
    cu, first = ([0, *accumulate(x)] for x in (lengths, counts))
    with torch.inference_mode(False):
        begins, kept = (torch.tensor(x, dtype=torch.int64, device=device) for x in (cu, first))
    return begins, kept, first[-1]


_serial_tables_once = lru_cache(maxsize=16)(_serial_tables)


def table_of(r: Tensor, s0: Tensor, starts: Tensor | None, first: Tensor | None) -> ChunkTable:
    """The table that `starts` and `first` came from."""
    batch, tokens = r.shape[:2]
    chunks = batch * ((tokens + CHUNK - 1) // CHUNK) if starts is None else starts.shape[0] - 1
    return ChunkTable(s0.shape[0], tokens, chunks, starts, first)


def aligned(x: Tensor) -> Tensor:
    """`x`, contiguous and at a multiple of 16 bytes: elsewhere Triton would compile another variant."""
    x = x.contiguous()
    return x.clone() if x.data_ptr() % 16 else x


def empty_like(x: Tensor) -> Tensor:
    """Contiguous, as the kernels write, whatever the strides of `x`."""
    return x.new_empty(x.shape)


def traced(tensors: Sequence[Tensor]) -> bool:
    """Whether something looks on that wants ops: a compiler, a dispatch mode, a tensor with a torch dispatch."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True
    return any(type(x) is not Tensor and type(x) is not torch.nn.Parameter for x in tensors)


def _define(name: str, arguments: list[str], outputs: int) -> Any:
    given = ", ".join(["Tensor"] * outputs)
    LIBRARY.define(f"{name}({', '.join(arguments)}) -> {f'({given})' if outputs > 1 else given}")
    return getattr(torch.ops.wkv, name).default


def _implement(op: Any, run: Run, fake: Run) -> None:
    LIBRARY.impl(op.name(), run, "CompositeExplicitAutograd")
    register_fake(op.name(), fake, lib=LIBRARY)


def _below_autograd(op: Run) -> Run:
    def call(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return call


def _differentiate(op: Any, function: Any, below: Run) -> None:
    """Let an op go through an autograd function where a gradient may be asked for."""

    def call(*args: Any) -> Any:
        return (function.apply if grad_needed(*(x for x in args if isinstance(x, Tensor))) else below)(*args)

    LIBRARY.impl(op.name(), call, "Autograd")


def _recorded(kernels: Kernels, run: Run, once: Any, back: Run) -> Any:
    """The autograd function of a forward pass `run`; its gradients are `back`, or `once` where they are recorded."""
    count = len(kernels.names)

    class Recorded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
            outputs = run(*args)
            ctx.save_for_backward(*args[:count], *outputs[2:], *args[count + 1 : count + 3])
            ctx.ends = args[count].shape
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*outputs[3:])
            return outputs

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None, ds: Tensor | None, dstates: Tensor | None, *_: Any) -> Any:
            *saved, starts, first = ctx.saved_tensors
            dy = torch.zeros_like(saved[3]) if dy is None else dy
            ds = saved[count].new_zeros(ctx.ends) if ds is None else ds
            gradients = once.apply if torch.is_grad_enabled() else back
            return *gradients(*saved, dy, ds, dstates, starts, first), None, None, None

    return Recorded


def _once(kernels: Kernels, back: Run) -> Any:
    """The gradients as an autograd function that is no step of a second derivative."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
            return back(*args)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            raise RuntimeError(f'{kernels.name}: the "triton" backend has no second derivative; pass backend="naive"')

    return Once
