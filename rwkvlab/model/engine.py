"""Model: a frozen RWKV that starts from any initial state; every method leaves its inputs as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, PromptError, show
from rwkvlab.hub import fetch
from rwkvlab.model.chat import chat, chat_batch
from rwkvlab.model.flow import begin, finish, wants_grad
from rwkvlab.model.generate import generate, generate_batch
from rwkvlab.model.gpu import prepared
from rwkvlab.model.parts import Flow, Way, linear, rows_at
from rwkvlab.model.prompt import token_rows
from rwkvlab.model.recipe import Recipe, digest_vocab, digest_weights, recipe_of, reopen
from rwkvlab.model.score import score
from rwkvlab.model.tokenizer import Tokenizer, load_tokenizer
from rwkvlab.model.trace import trace
from rwkvlab.model.weights import VERSIONS, Checkpoint, load_weights
from rwkvlab.states.card import ModelCard
from rwkvlab.states.state import State

SEGMENT = 1024  # tokens read at once where no gradient is wanted: keeps memory flat on long texts
BACKENDS = ("auto", "naive", "chunked", "triton")


@dataclass(frozen=True)
class Output:
    """What `Model.forward` returns: logits [B,T,vocab] or [B,1,vocab] fp32 or None, and one State a row."""

    logits: Tensor | None
    states: list[State]

    @property
    def state(self) -> State:
        """The state after the text, where there was one row."""
        if len(self.states) != 1:
            raise ArgError(f"output.state: there are {len(self.states)} rows; take output.states")
        return self.states[0]


class Model:
    """A frozen RWKV language model.

    dims is its geometry, card its name and fingerprint, tokenizer encodes and decodes; device and dtype are those of
    the weights (WKV states and decays are always fp32). Made by `load_model`.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, tokenizer: Any = None, backend: str = "auto") -> None:
        if backend not in BACKENDS:
            raise ArgError(f"backend: need one of {', '.join(BACKENDS)}, got {show(backend)}")
        if backend == "triton" and not checkpoint.weights["emb.weight"].is_cuda:
            raise ArgError("backend: 'triton' needs a model on a CUDA device; take 'auto' or 'chunked' on a CPU")
        self.dims, self._checkpoint = checkpoint.dims, checkpoint
        self.card = ModelCard(name, checkpoint.dims.arch, checkpoint.fingerprint)
        self._version = VERSIONS[checkpoint.dims.arch]
        self._step = getattr(self._version, "step", None)  # the short way through for one token of one text
        self._engine, self._weights = prepared(self._version, checkpoint.weights, self.dims)
        self._backend = None if backend == "auto" else backend
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer, self.dims.vocab)
        self.recipe: Recipe | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how to open the model again, not its weights; ArgError where `load_model` did not make it."""
        return reopen, (recipe_of(self),)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weights.emb.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and activations."""
        return self._weights.emb.dtype

    @cached_property
    def digests(self) -> tuple[str, str]:
        """SHA-256 of all weights, in their dtype, and of the vocabulary ("" if it is no list of bytes); taken once."""
        return digest_weights(self._checkpoint.weights), digest_vocab(self)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back; chosen by the vocabulary size unless it was given to `load_model`."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(None, self.dims.vocab)
        return self._tokenizer

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"<Model {show(self.card.name)} {self.dims}, vocabulary {self.dims.vocab}, {dtype} on {self.device}>"

    def zero(self) -> State:
        """Return the state that every text starts from unless another is mounted: zeros."""
        dims = self.dims
        return State(torch.zeros(dims.L, dims.H, dims.V, dims.K), like=self).named("zero")

    def forward(self, tokens: Any, state: Any = None, logits: str | None = "all") -> Output:
        """Read tokens, each row from its initial state.

        tokens: list[int], a list of equal-length lists, or a LongTensor [T] or [B,T]. state: None (zeros), a State for
        all rows, or a list of B. logits: "all", "last" or None. Differentiable in the tensors of the states that
        require grad; the weights stay frozen. One row of tokens and B states make B rows.
        Raises PromptError for bad ids, MismatchError for a state that does not fit.
        """
        if logits not in ("all", "last", None):
            raise ArgError(f"logits: need 'all', 'last' or None, got {show(logits)}")
        rows = token_rows(tokens, self.dims.vocab)
        starts = list(state) if isinstance(state, (list, tuple)) else [state] * len(rows)
        if len(rows) == 1 and len(starts) > 1:
            rows = rows.expand(len(starts), -1)
        if len(starts) != len(rows):
            raise ArgError(f"state: {len(starts)} states for {len(rows)} rows of tokens")
        tracked = torch.is_grad_enabled() and wants_grad(starts)
        with torch.set_grad_enabled(tracked):
            flow = self.begin(starts)
            out = self.run(rows, flow, logits)
        if logits == "last" and out is not None and rows.shape[1]:
            out = out[:, None]
        return Output(out, finish(self, flow, starts, rows.shape[1]))

    def read(self, prompt: str | Sequence[int], state: State | None = None) -> State:
        """Return the state after `prompt` (text or ids): what the model knows after reading it."""
        return self.forward(self.encode(prompt), state, logits=None).state

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the ids of a prompt given as text or as ids; raises PromptError for anything else."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        rows = token_rows(prompt, self.dims.vocab)
        if len(rows) != 1:
            raise PromptError(f"prompt: need one row of ids, got {len(rows)}")
        return rows[0].tolist()

    begin = begin
    generate = generate
    generate_batch = generate_batch
    chat = chat
    chat_batch = chat_batch
    score = score
    trace = trace

    def run(self, tokens: Tensor, flow: Flow, logits: str | None = "last", way: Way | None = None) -> Tensor | None:
        """Read tokens [B,T] from `flow` and move it on; returns fp32 logits [B,vocab] ("last") or [B,T,vocab] ("all").

        Without autograd the tensors of `flow` may be written in place: it belongs to the caller and to no State.
        """
        tokens, way = tokens.to(self.device), way or Way(backend=self._backend)
        if tokens.shape[1] == 0:
            return None if logits is None else torch.zeros(len(tokens), 0, self.dims.vocab, device=self.device)
        if self._engine is not None and way.plain and not torch.is_grad_enabled():
            return self._engine.run(self._weights, tokens, flow, logits)
        every = way.chunk_states or 1  # chunk states are counted from the start of a segment
        parts, step = [], tokens.shape[1] if torch.is_grad_enabled() else max(1, SEGMENT // every) * every
        for part in tokens.split(step, dim=1):
            x = self.passed(part, flow, way)
            parts += [self.head(x)] if logits == "all" else []
        if logits == "last":
            return self.head(x[:, -1])
        return torch.cat(parts, dim=1) if parts else None

    def hidden(self, tokens: Tensor, flow: Flow, at: Tensor, way: Way | None = None) -> Tensor:
        """Read tokens [B,T] as `run` does; returns [N,C] for the N tokens of a mask [B,T], for `head`."""
        return rows_at(self.passed(tokens.to(self.device), flow, way or Way(backend=self._backend)), at)

    def head(self, x: Tensor) -> Tensor:
        """Return the fp32 logits [...,vocab] of x [...,C]."""
        return linear(x, self._weights.head).float()

    def passed(self, tokens: Tensor, flow: Flow, way: Way) -> Tensor:
        """Read tokens [B,T] on the device; returns x [B,T,C] after the last norm and moves `flow` on."""
        if self._step is not None and way.plain and not torch.is_grad_enabled() and tokens.shape == (1, 1):
            return self._step(self._weights, tokens, flow)
        return self._version.run(self._weights, tokens, flow, way)


def load_model(
    source: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tokenizer: Any = None,
    backend: str = "auto",
) -> Model:
    """Load an RWKV-5.2, RWKV-6 or RWKV-7 base model.

    source is a path (.pth, .safetensors, Ai00's .st, the Hugging Face folder of an RWKV-7) or "owner/repo/file" on the
    Hugging Face hub. device "auto" is CUDA where there is one; dtype "auto" keeps the file's ("fp32", "bf16", "fp16").
    tokenizer: None chooses by the vocabulary size; "world", "bytes", a vocabulary file, or an object with encode and
    decode. backend is the WKV kernel: "auto", "naive", "chunked" or "triton". Raises PathError, LoadError (RoomError
    where memory is short), VocabError or ArgError.
    """
    path, where = fetch(source), _device(device)
    checkpoint = load_weights(path, where, dtype)
    name = path.absolute().name if path.is_dir() else path.stem
    model = Model(checkpoint, name, tokenizer, backend)
    model.recipe = Recipe.of(source, path, where, dtype, tokenizer, backend)
    return model


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type == "meta":
            raise ValueError("no numbers there")
        torch.empty(0, device=chosen)
    except Exception as error:
        raise ArgError(f"device: {show(device)} cannot be used here; 'cpu' always can") from error
    return chosen
