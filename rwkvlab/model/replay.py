"""Replay: the WKV of a layer run once more on what it was fed, so that what is left of an initial state can be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm
from wkv import wkv6, wkv7

from rwkvlab.errors import ArgError, PromptError
from rwkvlab.model.parts import Way
from rwkvlab.shapes import check_range
from rwkvlab.states.state import State, check_fits

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

SEGMENT = 1024  # tokens whose operands are held at once
NUMBERS = 2**24  # numbers of states held at once, on the way through a segment


@dataclass(frozen=True, eq=False)
class Carried:
    """What is left of an initial state along a text of T tokens, the layers' inputs frozen; all float64 on the CPU.

    positions [n]: after how many tokens, 0, every, 2 * every, …, T. norm [n,L,H]: Frobenius norm of S_0 P_1 … P_t, the
    product being that of the transitions, in state units. readout [n,L,H]: what the tokens since the position before
    read out of it, and whole [n,L,H]: all that they read out of the head (in RWKV-5 and 6 with its bonus u), both as
    root mean square over these tokens of the norm of y [V]; nan at position 0. left [L,H,V,K] is the matrix at the end.
    """

    positions: Tensor
    norm: Tensor
    readout: Tensor
    whole: Tensor
    left: Tensor


def replay(
    operands: Mapping[str, Tensor], start: Tensor, *, writes: bool = True, every: int | None = None
) -> tuple[Tensor, ...]:
    """Run one layer's WKV on its operands, from another start and in the start's precision.

    operands: by name as `Trace` keeps them, with a batch axis: r w k v and a b (RWKV-7) or u, [B,T,H,·]. start:
    [B,H,V,K] float32 or float64. writes=False leaves out the writes v k^T: then what comes is the start's own part of
    y and of the state, exactly, since with the operands fixed both are affine in the start. Returns y [B,T,H,V], the
    last state, and with `every` the states before every so many tokens [B,ceil(T/every),H,V,K].
    """
    given = {name: x.to(start.device, start.dtype) for name, x in operands.items()}
    if not writes:
        given["v"] = torch.zeros_like(given["v"])
    r, w, k, v = (given[name] for name in ("r", "w", "k", "v"))
    if "u" in given:
        return wkv6(r, w, k, v, given["u"], start, chunk_states=every)
    return wkv7(r, w, k, v, given["a"], given["b"], start, chunk_states=every)


def carried(
    model: Model,
    prompt: str | Sequence[int],
    start: State,
    *,
    inputs_of: State | None,
    every: int = 16,
    tick: Callable[[float, float], object] | None = None,
) -> Carried:
    """Carry `start` alone through the transitions that the layers of `model` make while it reads `prompt`.

    inputs_of: the State (None: zeros) from which the text is read; what its run feeds to every WKV is held fixed. In
    layer 0 that does not depend on any WKV matrix, above it does. The result equals the difference of two runs of each
    WKV on these inputs, one from `start` and one from zeros. Computed in float64 beside the run, layer by layer, so
    memory does not grow with the text. The token-shifts of `start` are no part of it. A bar shows after two seconds;
    with a `tick` no bar, but tick(layers done, of how many) after each, and what it raises ends it. Raises ArgError
    (every outside 1 … 1024), PromptError, MismatchError.
    """
    every = int(check_range("every", every, 1, SEGMENT, whole=True))
    if not isinstance(start, State):
        raise ArgError(f"start: need a State, got {type(start).__name__}")
    check_fits(start, model)
    ids = model.encode(prompt)
    if not ids:
        raise PromptError("prompt: there is nothing to follow in an empty text")
    carry = _Carry(model, start, len(ids), every)
    step = max(1, SEGMENT // every) * every
    total = model.dims.L * -(-len(ids) // step)
    bar = tqdm(total=total, delay=2, desc="direct influence", leave=False, disable=bool(tick))
    done = 0
    with torch.no_grad(), bar:
        flow = model.begin([inputs_of])
        held: dict[str, Tensor] = {}

        def tap(layer: int, name: str, tensor: Tensor) -> None:
            nonlocal done
            held[name] = tensor
            if name == "y":  # the last to be reported of a layer
                carry.move(layer, dict(held), at)
                held.clear()
                bar.update()
                done += 1
                if tick is not None:
                    tick(done, total)

        way = Way(backend=model._backend, tap=tap)
        for at in range(0, len(ids), step):
            model.run(torch.tensor([ids[at : at + step]]), flow, logits=None, way=way)
    return carry.result(len(ids))


class _Carry:
    """The states that are carried, one a layer, and what was seen of them."""

    def __init__(self, model: Model, start: State, tokens: int, every: int) -> None:
        dims = model.dims
        self.every = every
        self.states = list(start.wkv.detach().to(model.device, torch.float64)[:, None].unbind(0))  # L of [1,H,V,K]
        shape = (-(-tokens // every) + 1, dims.L, dims.H)
        self.norm, self.readout, self.whole = (torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(3))
        self.step = max(1, NUMBERS // (dims.H * dims.V * dims.K)) * every

    def move(self, layer: int, seen: dict[str, Tensor], at: int) -> None:
        """Carry a layer's state over the tokens of a segment that begins at token `at`, a multiple of `every`."""
        y = seen.pop("y")
        for begin in range(0, y.shape[1], self.step):
            part = {name: x if name == "u" else x[:, begin : begin + self.step] for name, x in seen.items()}
            read, end, before = replay(part, self.states[layer], writes=False, every=self.every)
            first = (at + begin) // self.every
            rows = slice(first, first + before.shape[1])
            self.norm[rows, layer] = torch.linalg.vector_norm(before[0], dim=(-2, -1)).cpu()
            after = slice(rows.start + 1, rows.stop + 1)
            self.readout[after, layer] = self._rms(read)
            self.whole[after, layer] = self._rms(y[:, begin : begin + self.step])
            self.states[layer] = end

    def _rms(self, y: Tensor) -> Tensor:
        """Return the root mean square of |y| over each `every` tokens; y [1,T,H,V] -> [ceil(T/every),H]."""
        squares = y[0].double().square().sum(-1)  # [T,H]
        return torch.stack([part.mean(0) for part in squares.split(self.every)]).sqrt().cpu()

    def result(self, tokens: int) -> Carried:
        left = torch.stack([state[0] for state in self.states]).cpu()
        self.norm[-1] = torch.linalg.vector_norm(left, dim=(-2, -1))
        positions = torch.tensor([*range(0, tokens, self.every), tokens])
        return Carried(positions, self.norm, self.readout, self.whole, left)
