"""Token ids from outside become one checked LongTensor [B,T], before anything reaches the model or a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rwkvlab.errors import PromptError, show


def token_rows(tokens: Any, vocab: int) -> Tensor:
    """Return list[int], lists of equal length or an integer tensor [T] or [B,T] as LongTensor [B,T] on the CPU.

    Raises PromptError naming the first id that is not an integer in [0, vocab), or rows of unequal length.
    """
    if isinstance(tokens, (Tensor, np.ndarray)):
        rows = _from_array(torch.as_tensor(tokens))
    elif isinstance(tokens, (list, tuple)):
        nested = [row if isinstance(row, (list, tuple)) else None for row in tokens]
        lists = [list(row) for row in nested if row is not None]
        if lists and len(lists) != len(tokens):
            raise PromptError("tokens: a list of ids or a list of lists of ids, not a mix of both")
        rows = _from_lists(lists if lists else [list(tokens)])
    else:
        raise PromptError(f"tokens: need token ids (a list or an integer tensor), got {type(tokens).__name__}")
    bad = ((rows < 0) | (rows >= vocab)).nonzero()
    if len(bad):
        row, at = bad[0].tolist()
        raise PromptError(f"tokens: id {int(rows[row, at])} at row {row}, position {at} is not in [0, {vocab})")
    return rows


def _from_array(rows: Tensor) -> Tensor:
    if rows.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8) or rows.dim() not in (1, 2):
        raise PromptError(f"tokens: need integers [T] or [B,T], got {rows.dtype} {list(rows.shape)}")
    rows = rows.detach().to("cpu", torch.int64)
    return rows[None] if rows.dim() == 1 else rows


def _from_lists(rows: list[list[Any]]) -> Tensor:
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise PromptError(
                f"tokens: row {number} has {len(row)} ids, row 0 has {len(rows[0])}; rows must be equally long"
            )
        for at, token in enumerate(row):
            if type(token) is not int and not isinstance(token, np.integer):
                raise PromptError(f"tokens: row {number}, position {at}: need an integer id, got {show(token)}")
            if not -(2**62) < int(token) < 2**62:
                raise PromptError(f"tokens: row {number}, position {at}: id {show(token)} is out of range")
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(rows[0]))
