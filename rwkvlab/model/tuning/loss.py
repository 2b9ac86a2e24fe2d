"""What tuning minimises: how far the model is from the answers of some examples, or from what a teacher says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from rwkvlab.model.examples import Encoded
from rwkvlab.model.tuning.graphed import GraphedPass
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

# Logits that are held at once.
PIECE = 2**24


@dataclass(frozen=True)
class Objective:
    """The loss of a batch of examples read from a state.

    teacher: the state that the same model reads them from as the teacher, or None. The loss of a token is then `weight`
    times KL(teacher || student) and the rest of 1 times the cross-entropy; without a teacher the cross-entropy alone.
    passes: how the batches are read (None: as the model reads).
    """

    model: Model
    teacher: State | None = None
    weight: float = 1.0
    passes: GraphedPass | None = None

    def total(self, params: Sequence[Tensor], rows: Sequence[Encoded]) -> Tensor:
        """The sum of the losses of all counted tokens of a batch in nats; params are the parts of the state."""
        tokens, wanted = padded(rows)
        state = State(params[0], like=self.model, att_shift=params[1], ffn_shift=params[2])
        at = wanted[:, 1:]
        x = self._read(tokens, state, at)
        answers = tokens[:, 1:][at].to(x.device, non_blocking=True)
        if self.teacher is None:
            return cross_entropy(self.model, x, answers)
        with torch.no_grad():
            told = self._read(tokens, self.teacher, at)
        return piecewise(self.model, self._taught, x, answers, told)

    def _read(self, tokens: Tensor, state: State, at: Tensor) -> Tensor:
        """What the head makes logits of, [N,C], for the N tokens of the mask `at`, each row read from one state."""
        read = self.model.hidden if self.passes is None else self.passes.hidden
        return read(tokens[:, :-1], self.model.begin([state] * len(tokens)), at)

    def _taught(self, logits: Tensor, answers: Tensor, told: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.model.head(told).log_softmax(-1)
        apart = F.kl_div(logits.log_softmax(-1), wanted, reduction="sum", log_target=True)
        if self.weight == 1:
            return apart
        return self.weight * apart + (1 - self.weight) * F.cross_entropy(logits, answers, reduction="sum")


def cross_entropy(model: Model, x: Tensor, answers: Tensor) -> Tensor:
    """Return the sum over tokens of the cross-entropy of answers [N] under the logits of x [N,C], in nats.

    Its gradient is made along with it, a piece of the logits at a time: none of them are kept or made twice.
    """
    total: Tensor = _CrossEntropy.apply(model, x, answers, torch.is_grad_enabled() and x.requires_grad)
    return total


class _CrossEntropy(torch.autograd.Function):
    """`cross_entropy`, and the gradient of x beside it where that is wanted."""

    @staticmethod
    def forward(ctx: Any, model: Model, x: Tensor, answers: Tensor, wanted: bool) -> Tensor:
        total, slope = x.new_zeros((), dtype=torch.float32), torch.empty_like(x) if wanted else None
        count = max(1, PIECE // model.dims.vocab)
        for at in range(0, len(x), count):
            logprobs = model.head(x[at : at + count]).log_softmax(-1)
            given = answers[at : at + count, None]
            total -= logprobs.gather(1, given).sum()
            if slope is not None:
                off = logprobs.exp_().scatter_add_(1, given, logprobs.new_full(given.shape, -1.0))
                torch.mm(off.to(x.dtype), model._weights.head, out=slope[at : at + count])
        if slope is not None:
            ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[None, Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return None, (slope * weight).to(slope.dtype), None, None


def piecewise(model: Model, loss: Callable[..., Tensor], x: Tensor, *along: Tensor) -> Tensor:
    """Return `loss(logits, *along)`, a sum over tokens (or one number a token), of the logits of x [N,C].

    Where the logits of all N tokens would be many they are made in pieces, and once more on the way back, so that only
    those of one piece are ever held: with a vocabulary of 65,536 a thousand tokens would take 0.8 GB.
    """

    def of(x: Tensor, *along: Tensor) -> Tensor:
        return loss(model.head(x), *along)

    count = max(1, PIECE // model.dims.vocab)
    if len(x) <= count:
        return of(x, *along)
    parts = [
        checkpoint(of, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(x.split(count), *(y.split(count) for y in along), strict=True)
    ]
    return torch.cat(parts) if parts[0].dim() else torch.stack(parts).sum()


def padded(rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Return the ids of a batch, filled up with the end of text, and which of them count, both [B,T]."""
    longest = max(len(row.ids) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    wanted = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row.ids)] = torch.tensor(row.ids)
        wanted[number, : len(row.ids)] = torch.tensor(row.wanted)
    return tokens, wanted


def counted(rows: Sequence[Encoded]) -> int:
    """Return how many tokens the loss of a batch is of."""
    return sum(sum(row.wanted) for row in rows)
