"""What tuning minimises: how far the model is from the answers of some examples, or from what a teacher says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.model.examples import Encoded
from rwkvlab.model.parts import Way
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


@dataclass(frozen=True)
class Objective:
    """The loss of a batch of examples read from a state.

    teacher: the state that the same model reads them from as the teacher, or None. The loss of a token is then `weight`
    times KL(teacher || student) and the rest of 1 times the cross-entropy; without a teacher the cross-entropy alone.
    """

    model: Model
    teacher: State | None = None
    weight: float = 1.0
    way: Way | None = None

    def total(self, params: Sequence[Tensor], rows: Sequence[Encoded]) -> Tensor:
        """The sum of the losses of all counted tokens of a batch in nats; params are the parts of the state."""
        tokens, wanted = padded(rows)
        state = State(params[0], like=self.model, att_shift=params[1], ffn_shift=params[2])
        at = wanted[:, 1:]
        logits = self._logits(tokens, state, at)
        answers = tokens[:, 1:][at].to(logits.device)
        if self.teacher is None:
            return F.cross_entropy(logits, answers, reduction="sum")
        with torch.no_grad():
            told = self._logits(tokens, self.teacher, at).log_softmax(-1)
        apart = F.kl_div(logits.log_softmax(-1), told, reduction="sum", log_target=True)
        if self.weight == 1:
            return apart
        return self.weight * apart + (1 - self.weight) * F.cross_entropy(logits, answers, reduction="sum")

    def _logits(self, tokens: Tensor, state: State, at: Tensor) -> Tensor:
        """The logits [N,vocab] of the N tokens of the mask `at`, each row read from one state."""
        logits = self.model.run(tokens[:, :-1], self.model.begin([state] * len(tokens)), at, self.way)
        assert logits is not None
        return logits


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
