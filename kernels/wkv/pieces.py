"""Cutting the time axis: packed sequences, states on the way, and the equal chunks of the chunked backends."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

# Floats of one input in a slab of chunks: 1 MB.
SLAB = 1 << 18
# A kernel without packing: (*inputs over time, s0) -> (y, s).
Kernel = Callable[..., tuple[Tensor, Tensor]]


def run_pieces(
    kernel: Kernel, inputs: list[Tensor], v: Tensor, s0: Tensor, lengths: list[int] | None, every: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run a plain kernel over packed sequences (`lengths`) and stop every `every` tokens to keep the state."""
    batch, tokens, heads, rows = v.shape
    starts = s0.split(1) if lengths is not None else [s0]
    ys, ends, kept = [v.new_zeros(batch, 0, heads, rows)], [], [s0.new_zeros(batch, 0, *s0.shape[1:])]
    for pieces, state in zip(time_pieces([tokens] if lengths is None else lengths, every), starts, strict=True):
        for begin, end in pieces:
            kept.append(state[:, None])
            y, state = kernel(*(x[:, begin:end] for x in inputs), state)
            ys.append(y)
        ends.append(state)
    return torch.cat(ys, dim=1), torch.cat(ends), torch.cat(kept, dim=1) if every else None


def time_pieces(lengths: list[int], every: int | None) -> list[list[tuple[int, int]]]:
    """For each sequence of those packed along T: its pieces of at most `every` tokens as (begin, end)."""
    found, first = [], 0
    for length in lengths:
        stop = first + length
        found.append([(at, min(at + (every or length), stop)) for at in range(first, stop, every or max(length, 1))])
        first = stop
    return found


@dataclass(frozen=True)
class Chunks:
    """How [B,T,H,X] becomes chunks [N,G,Q,X] and back: Q tokens a chunk, G = B*H heads.

    Short ends are filled with tokens that change nothing (zeros, also in the log decay), so that every packed sequence
    and every state that is kept begins at a chunk.
    """

    batch: int
    tokens: int
    size: int  # Q
    counts: list[int]  # chunks in each sequence
    keep: list[int]  # chunks before which the state is kept
    places: Tensor | None  # [N*Q] the token at each place, T for a filler; None: plain order, fillers at the end

    @staticmethod
    def plan(x: Tensor, size: int, lengths: list[int] | None, every: int | None) -> "Chunks":
        """Plan for inputs like `x` [B,T,H,K]: at most `size` tokens a chunk."""
        batch, tokens = x.shape[:2]
        pieces = time_pieces([tokens] if lengths is None else lengths, every)
        longest = max((end - begin for sequence in pieces for begin, end in sequence), default=1)
        size = min(size, 1 << (longest - 1).bit_length())
        counts: list[int] = []
        keep: list[int] = []
        places: list[int] = []
        for sequence in pieces:
            first = len(places)
            for begin, end in sequence:
                keep.append(len(places) // size)
                places += [*range(begin, end), *[tokens] * (-(end - begin) % size)]
            counts.append((len(places) - first) // size)
        plain = places[:tokens] == list(range(tokens))
        index = None if plain else torch.tensor(places, device=x.device)
        return Chunks(batch, tokens, size, counts, keep if every else [], index)

    def cut(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """[B,T,H,X] -> [N,G,Q,X], in `dtype`."""
        x = x.to(dtype)
        count = sum(self.counts)
        fill = count * self.size - self.tokens
        if self.places is not None:
            x = pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.places)
        elif fill:
            x = pad(x, (0, 0, 0, 0, 0, fill))
        x = x.unflatten(1, (count, self.size)).permute(1, 0, 3, 2, 4)  # [N,B,H,Q,X]
        return x.flatten(1, 2)

    def slabs(self, width: int) -> list[list[tuple[int, int]]]:
        """Runs of chunks that are worked on at once, so that temporaries stay near the cache: (sequence, chunks) pairs.

        `width`: floats a token, all heads together.
        """
        room = max(1, SLAB // max(1, width * self.size))
        slabs: list[list[tuple[int, int]]] = []
        free = 0
        for sequence, count in enumerate(self.counts):
            while count:
                if not free:
                    slabs.append([])
                    free = room
                take = min(free, count)
                slabs[-1].append((sequence, take))
                free, count = free - take, count - take
        return slabs

    def join(self, y: Tensor) -> Tensor:
        """[N,G,Q,X] -> [B,T,H,X]."""
        y = y.unflatten(1, (self.batch, y.shape[1] // max(self.batch, 1))).permute(1, 0, 3, 2, 4).flatten(1, 2)
        if self.places is None:
            return y[:, : self.tokens]
        return y[:, (self.places < self.tokens).nonzero()[:, 0]]

    def kept(self, before: Tensor) -> Tensor:
        """Of the states before each chunk [N,G,V,K], those to keep [B,len(keep),H,V,K]."""
        kept = before[torch.tensor(self.keep, dtype=torch.long, device=before.device)]
        return kept.unflatten(1, (self.batch, kept.shape[1] // max(self.batch, 1))).transpose(0, 1)


# (start [n,G,V,K], chunks of each sequence, *inputs [M,Q,X]) -> (y [M,Q,V], states before [N,G,V,K], ends [n,G,V,K]).
Slab = Callable[..., tuple[Tensor, Tensor, Tensor]]


def run_slabs(
    slab: Slab, chunks: Chunks, inputs: list[Tensor], s0: Tensor, every: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Walk over the slabs, carrying the state of each sequence; `inputs` [B,T,H,X] -> (y, s, kept states)."""
    dtype = s0.dtype
    cut = [chunks.cut(x, dtype) for x in inputs]  # [N,G,Q,X]
    heads = cut[0].shape[1]
    states = list(s0.reshape(len(chunks.counts), -1, *s0.shape[2:]))  # [G,V,K] each
    slabs = chunks.slabs(heads * cut[0].shape[3])
    lengths = [sum(count for _, count in parts) for parts in slabs]
    ys, befores = [], []
    for parts, *xs in zip(slabs, *(x.split(lengths) for x in cut), strict=True):
        start = torch.stack([states[i] for i, _ in parts])
        y, before, ends = slab(start, [count for _, count in parts], *(x.flatten(0, 1) for x in xs))
        ys.append(y.unflatten(0, (-1, heads)))
        if every:
            befores.append(before)
        for (i, _), end in zip(parts, ends, strict=True):
            states[i] = end
    ends = torch.stack(states).reshape(s0.shape)
    y = torch.cat(ys) if ys else s0.new_zeros(0, heads, chunks.size, s0.shape[2])
    kept = torch.cat(befores) if befores else s0.new_zeros(0, heads, *s0.shape[2:])
    return chunks.join(y), ends, chunks.kept(kept) if every else None
