"""The processes that share a run of tuning, as `torchrun` starts them, and what they tell each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from rwkvlab.errors import TuneError, WorkerError

T = TypeVar("T")


class Ranks:
    """One of `world` processes, of number `rank`; alone where torch.distributed is not initialised.

    Every method but `share` must be called by all of them alike: each waits for the others.
    """

    def __init__(self, device: torch.device) -> None:
        shared = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        self._device = device if shared and dist.get_backend() == "nccl" else torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's share of a batch; may be empty."""
        return rows if self.world == 1 else rows[self.rank :: self.world]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put into tensors of one dtype their sums over all processes."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.detach().to(self._device).flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def sum(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.world == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self._device)
        dist.all_reduce(total)
        return float(total)

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        if self.world == 1:
            return value
        return self._extreme([int(value)], dist.ReduceOp.MAX) == [1]

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Put into tensors what they are in the first process."""
        if self.world == 1:
            return
        for tensor in tensors:
            there = tensor.detach().to(self._device).contiguous()
            dist.broadcast(there, 0)
            tensor.detach().copy_(there)

    def lead(self, call: Callable[[], object]) -> None:
        """Let the first process do something alone; where that fails all raise: the others WorkerError."""
        failure: BaseException | None = None
        if self.first:
            try:
                call()
            except BaseException as error:
                failure = error
        if self.any(failure is not None):
            raise failure or WorkerError("tune: the first process failed, so the others end too; see what it says")

    def check_same(self, digest: str) -> None:
        """Raise TuneError in all processes unless each has the same digest (64 hex digits) of what it is to do."""
        if self.world == 1:
            return
        words = [int(digest[at : at + 8], 16) for at in range(0, 64, 8)]
        if self._extreme(words, dist.ReduceOp.MAX) != self._extreme(words, dist.ReduceOp.MIN):
            raise TuneError(
                "tune: the processes have different models, examples or settings; start all with the same ones"
            )

    def _extreme(self, values: list[int], how: dist.ReduceOp.RedOpType) -> list[int]:
        found = torch.tensor(values, dtype=torch.int64, device=self._device)
        dist.all_reduce(found, op=how)
        return found.tolist()
