"""How the token axis is cut into the chunks that the Triton kernels work on: by arithmetic, or by tables."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from wkv.pieces import time_pieces

# Tokens of a chunk, at most.
CHUNK = 64


@dataclass(frozen=True)
class ChunkTable:
    """The chunks of n sequences that lie one after the other on the flattened token axis [B*T].

    `starts` [chunks + 1] is where each chunk begins there and `first` [n + 1] the first chunk of each sequence, both
    int64 on the device of the inputs; both None where every sequence has `tokens` tokens and is cut every 64.
    """

    sequences: int
    tokens: int
    chunks: int
    starts: Tensor | None = None
    first: Tensor | None = None

    @staticmethod
    def plan(
        batch: int, tokens: int, lengths: list[int] | None, every: int | None, device: torch.device
    ) -> tuple["ChunkTable", Tensor | None]:
        """The chunks of a batch (or of packed `lengths`), and which of them begin where a state is kept [B,n] or [1,n].

        No chunk crosses a multiple of `every` tokens, counted from the start of its sequence.
        """
        if lengths is None and (every is None or every % CHUNK == 0):
            count = -(-tokens // CHUNK)
            table = ChunkTable(batch, tokens, batch * count)
            kept = torch.arange(batch * count, device=device).unflatten(0, (batch, count))
            return table, kept[:, :: every // CHUNK] if every else None
        starts, first, kept_list = [0], [0], []
        for pieces in time_pieces([tokens] * batch if lengths is None else lengths, every):
            for begin, end in pieces:
                kept_list.append(len(starts) - 1)
                starts += [min(at + CHUNK, end) for at in range(begin, end, CHUNK)]
            first.append(len(starts) - 1)
        tables = [torch.tensor(x, dtype=torch.int64, device=device) for x in (starts, first, kept_list)]
        table = ChunkTable(len(first) - 1, tokens, len(starts) - 1, tables[0], tables[1])
        return table, tables[2].unflatten(0, (batch, len(kept_list) // max(batch, 1))) if every else None


@triton.jit
def sequence_chunks(n, first_ptr, T, C: tl.constexpr):
    """The first chunk of sequence n (int64), and how many it has."""
    if first_ptr is None:
        count = (T + C - 1) // C
        return n.to(tl.int64) * count, count
    else:  # (what follows a return is compiled too)
        first = tl.load(first_ptr + n)
        return first, (tl.load(first_ptr + n + 1) - first).to(tl.int32)


@triton.jit
def chunk_tokens(chunk, starts_ptr, T, C: tl.constexpr):
    """The first token of a chunk on the flattened axis (int64), and how many it has."""
    if starts_ptr is None:
        count = (T + C - 1) // C
        place = chunk % count * C
        return (chunk // count).to(tl.int64) * T + place, tl.minimum(T - place, C)
    else:
        begin = tl.load(starts_ptr + chunk)
        return begin, (tl.load(starts_ptr + chunk + 1) - begin).to(tl.int32)


@triton.jit
def tokens_of(n, j, first, starts_ptr, T, C: tl.constexpr):
    """`chunk_tokens` of chunk j of sequence n, whose chunks begin at `first`: without a division."""
    if starts_ptr is None:
        return n.to(tl.int64) * T + j * C, tl.minimum(T - j * C, C)
    else:
        return chunk_tokens(first + j, starts_ptr, T, C)
