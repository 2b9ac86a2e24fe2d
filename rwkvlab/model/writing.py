"""The loop that writes: one token a row and step, until each row has ended; the batch shrinks as rows do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from rwkvlab.model.deciding import next_tokens
from rwkvlab.model.flow import row_state
from rwkvlab.model.parts import Flow
from rwkvlab.model.reading import read_prompts
from rwkvlab.model.sampling import Sampling
from rwkvlab.model.stream import TextStream
from rwkvlab.model.vocab import END_OF_TEXT
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model


class Row:
    """One row of a batch that is being generated: its prompt, start and generator, and what it has written."""

    def __init__(self, index: int, ids: list[int], start: State | None, stream: TextStream, seed: int) -> None:
        """Start with nothing written."""
        self.index, self.ids, self.start, self.stream, self.seed = index, ids, start, stream, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.counts: dict[int, int] = {}
        self.finish = ""
        self.state: State | None = None

    def take(self, token: int, logprob: float, most: int) -> str:
        """Add a drawn token; returns the text that it settles."""
        if token == END_OF_TEXT:
            self.finish = "end"
            return self.stream.flush()
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.counts[token] = self.counts.get(token, 0) + 1
        piece = self.stream.push(token)
        if self.stream.stopped:
            self.finish = "stop"
        elif len(self.tokens) == most:
            self.finish = "length"
            piece += self.stream.flush()
        return piece


class Writing:
    """One call of `generate_batch`: the rows that still write, and their state in flight."""

    def __init__(
        self,
        model: Model,
        rows: list[Row],
        sampling: Sampling,
        on_text: Callable[[int, str], object] | None,
        stop_reason: Callable[[], str],
    ) -> None:
        """Take the rows, their common settings, where pieces go to, and what tells why to stop ("" to go on)."""
        self.model, self.rows, self.live, self.sampling = model, rows, list(rows), sampling
        self.on_text, self.stop_reason = on_text, stop_reason
        self.holes = model.tokenizer.holes(model.dims.vocab)

    def go(self) -> None:
        """Read the prompts and write until every row has a `finish` and a `state`."""
        model, sampling = self.model, self.sampling
        started = read_prompts(model, [r.ids for r in self.rows], [r.start for r in self.rows], self.stop_reason)
        if started is None:
            return self._stop(self.stop_reason(), None)
        logits, flow = started
        if sampling.max_tokens == 0:
            return self._stop("length", flow)
        while self.live:
            reason = self.stop_reason()
            if reason:
                return self._stop(reason, flow if self.live[0].tokens else None)
            step = len(self.live[0].tokens)
            counts, generators = [r.counts for r in self.live], [r.generator for r in self.live]
            tokens, own = next_tokens(logits, counts, sampling, self.holes, generators, step)
            for row, token, logprob in zip(self.live, tokens, own, strict=True):
                self._emit(row, row.take(token, logprob, sampling.max_tokens))
            flow, _ = self._retire(flow, logits, {"end"})
            if self.live:
                fed = torch.tensor([[row.tokens[-1]] for row in self.live])
                writing = not all(row.finish for row in self.live)
                logits = model.run(fed, flow, "last" if writing else None)  # type: ignore[assignment]
                flow, logits = self._retire(flow, logits, {"stop", "length"})

    def rescue(self) -> None:
        """After a KeyboardInterrupt at any point: read the rows' tokens again, since their flow may be half-way."""
        for row in self.live:
            del row.tokens[len(row.logprobs) :]
            row.finish = row.finish or "interrupted"
            row.state = self.model.read([*row.ids, *row.tokens], row.start) if row.tokens else self._start(row)
            self._emit(row, row.stream.flush())

    def _emit(self, row: Row, piece: str) -> None:
        if piece and self.on_text is not None:
            self.on_text(row.index, piece)

    def _stop(self, reason: str, flow: Flow | None) -> None:
        for at, row in enumerate(self.live):
            row.finish = reason
            row.state = self._start(row) if flow is None else self._state(row, flow, at)
            self._emit(row, row.stream.flush())
        self.live = []

    def _retire(self, flow: Flow, logits: Any, reasons: set[str]) -> tuple[Flow, Any]:
        """Take the rows that finished for one of `reasons` out of the batch, their states with them."""
        keep = []
        for at, row in enumerate(self.live):
            if row.finish in reasons:
                row.state = self._state(row, flow, at)
            else:
                keep.append(at)
        if len(keep) == len(self.live):
            return flow, logits
        self.live = [self.live[at] for at in keep]
        return flow.pick(keep), None if logits is None else logits[keep]

    def _state(self, row: Row, flow: Flow, at: int) -> State:
        return row_state(self.model, flow, at, row.start, len(row.ids) + len(row.tokens))

    def _start(self, row: Row) -> State:
        return self.model.zero() if row.start is None else row.start
