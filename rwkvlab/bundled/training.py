"""One training step of a bundled model: fp32 weights in two vectors, 16-bit passes over batches of fixed shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkvlab.bundled.feeding import KINDS, rows_of
from rwkvlab.bundled.initial import random_starts
from rwkvlab.bundled.micro_data import Batch
from rwkvlab.model.parts import Flow, Way
from rwkvlab.model.weights import VERSIONS
from rwkvlab.shapes import Dims

WARM = 3  # passes before one is recorded as a CUDA graph


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model comes out.

    tokens: about those of a step, padding counted; rows: what they make of each kind of document. lr rises through the
    warmup and falls along a cosine to `last` of it. noise: the share of rows that are read from a random state.

    After 1,800 steps (120 M tokens with padding) functions and StyleWorld are learned and the texts have been read some
    three times: in a run of 6,400 steps the loss of held-out texts rose from 3.4 nats a token at step 1,300 to 4.3.
    """

    seed: int = 0
    steps: int = 1800
    tokens: int = 65536
    lr: float = 2e-3
    warmup: int = 200
    last: float = 0.01
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-15
    clip: float = 1.0
    noise: float = 0.5
    rows: Mapping[str, int] = field(default_factory=dict)

    def rows_of(self, kind: str) -> int:
        """How many rows of a kind a step has."""
        return (self.rows or rows_of(self.tokens))[kind]


def weighted_loss(
    dims: Dims,
    way: Way,
    weights: Mapping[str, Tensor],
    tokens: Tensor,
    targets: Tensor,
    counted: Tensor,
    starts: Tensor,
) -> Tensor:
    """Return the sum over tokens [B,T] of their losses in nats times `counted`; starts [L,B,H,V,K] fp32."""
    version = VERSIONS[dims.arch]
    shifts = torch.zeros(len(tokens), dims.C, dtype=weights["emb.weight"].dtype, device=tokens.device)
    flow = Flow(list(starts.unbind(0)), [shifts] * dims.L, [shifts] * dims.L)
    x = version.run(version.prepare(weights, dims), tokens, flow, way)
    logits = F.linear(x.flatten(0, 1), weights["head.weight"]).float()
    return (F.cross_entropy(logits, targets.flatten(), reduction="none") * counted.flatten()).sum()


class Trainer:
    """The weights in training, their optimizer, and the buffers that the batches of a step are put into.

    compile: passes go through torch.compile; graphs: each kind's pass and its gradients are one CUDA graph. Where
    either fails, training goes on without it, and says so.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        dims: Dims,
        recipe: Recipe,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compiled: str = "",
        graphs: bool = False,
    ) -> None:
        self.dims, self.recipe, self.device, self.dtype = dims, recipe, device, dtype
        decayed = [key for key, x in weights.items() if key.endswith(".weight") and x.dim() == 2]
        self._keys = decayed, [key for key in weights if key not in set(decayed)]
        self._shapes = {key: x.shape for key, x in weights.items()}
        flats = [torch.cat([weights[key].flatten().float() for key in keys]) for keys in self._keys]
        self.flats = [flat.to(device).requires_grad_() for flat in flats]
        for flat in self.flats:
            flat.grad = torch.zeros_like(flat)
        groups = [
            {"params": [flat], "weight_decay": decay}
            for flat, decay in zip(self.flats, (recipe.weight_decay, 0.0), strict=True)
        ]
        self._optimizer = torch.optim.AdamW(
            groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=device.type == "cuda"
        )
        self._generator = torch.Generator(device).manual_seed(recipe.seed)
        self._way = Way(backend="triton" if device.type == "cuda" else "chunked")
        self._buffers = {kind.name: self._empty(recipe.rows_of(kind.name), kind.length) for kind in KINDS}
        self._scale, self._losses = torch.ones((), device=device), torch.zeros(len(KINDS), device=device)
        self._loss: Callable[..., Tensor] = weighted_loss
        self._compiled, self._graphs = compiled, graphs
        self._passes: list[Callable[[], object]] = []

    def _empty(self, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens, targets, their weights and the initial states."""
        dims = self.dims
        tokens, targets = (torch.zeros(rows, length, dtype=torch.int64, device=self.device) for _ in range(2))
        starts = torch.zeros(dims.L, rows, dims.H, dims.V, dims.K, device=self.device)
        return tokens, targets, torch.zeros(rows, length, device=self.device), starts

    def step(self, batches: Sequence[Batch], rate: float) -> Tensor:
        """Take one step on a batch of each kind; returns each kind's loss and the norm of the gradient [kinds + 1].

        A kind's loss is its mean over weighted tokens, in nats; the step is on the mean over all of them. What comes
        back is on the device, and nothing waits for it.
        """
        for kind, batch in zip(KINDS, batches, strict=True):
            *buffers, starts = self._buffers[kind.name]
            for buffer, x in zip(buffers, batch, strict=True):
                buffer.copy_(self._there(x))
            starts.copy_(random_starts(self.dims, len(starts[0]), self.recipe.noise, self._generator))
        counts = torch.stack([self._buffers[kind.name][2].sum() for kind in KINDS])
        self._scale.copy_(1 / counts.sum())
        if not self._passes:
            self._prepare()
        for flat in self.flats:
            flat.grad.zero_()  # type: ignore[union-attr]
        for run in self._passes:
            run()
        norm = torch.nn.utils.clip_grad_norm_(self.flats, self.recipe.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return torch.cat([self._losses / counts, norm[None]])

    def _there(self, x: Tensor) -> Tensor:
        """`x` on the device; a copy from pinned memory is not waited for."""
        return x.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else x

    def _named(self, flats: Sequence[Tensor]) -> dict[str, Tensor]:
        """The tensors that lie one after the other in each of two vectors."""
        named: dict[str, Tensor] = {}
        for keys, flat in zip(self._keys, flats, strict=True):
            parts = flat.split([self._shapes[key].numel() for key in keys])
            named |= {key: part.view(self._shapes[key]) for key, part in zip(keys, parts, strict=True)}
        return named

    def _pass(self, at: int) -> None:
        """Add the gradients of one kind's batch; the leaves are new ones, so that a CUDA graph holds all it needs."""
        leaves = [flat.detach().requires_grad_() for flat in self.flats]
        weights = self._named([leaf.to(self.dtype) for leaf in leaves])
        loss = self._loss(self.dims, self._way, weights, *self._buffers[KINDS[at].name])
        for flat, gradient in zip(self.flats, torch.autograd.grad(loss * self._scale, leaves), strict=True):
            flat.grad.add_(gradient)  # type: ignore[union-attr]
        self._losses[at].copy_(loss.detach())

    def _prepare(self) -> None:
        """Compile and record the passes, as far as wanted and as it works."""
        if self._compiled:
            self._loss = torch.compile(weighted_loss, dynamic=False, backend=self._compiled)
            try:
                for at in range(len(KINDS)):
                    self._pass(at)
            except Exception as error:  # whatever a compiler raises
                self._loss = weighted_loss
                print(f"goes on without torch.compile: {type(error).__name__}: {str(error)[:2000]}", flush=True)
        self._passes = [partial(self._pass, at) for at in range(len(KINDS))]
        if self._graphs and self.device.type == "cuda":
            try:
                self._passes = self._recorded()
            except RuntimeError as error:
                print(f"goes on without CUDA graphs: {str(error)[:2000]}", flush=True)

    def _recorded(self) -> list[Callable[[], object]]:
        graphs: list[torch.cuda.CUDAGraph] = []
        for at in range(len(KINDS)):
            here, aside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM):
                    self._pass(at)
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=graphs[0].pool() if graphs else None):
                self._pass(at)
            graphs.append(graph)
        return [graph.replay for graph in graphs]

    @torch.no_grad()
    def held_out(self, batches: Mapping[str, Sequence[Batch]]) -> dict[str, float]:
        """Return by kind the mean loss in nats of the tokens that weigh fully, from states of zeros."""
        weights, losses = self._named([flat.to(self.dtype) for flat in self.flats]), {}
        for kind, several in batches.items():
            total, count = torch.zeros((), device=self.device), 0.0
            for batch in several:
                tokens, targets, counted = (self._there(x) for x in batch)
                full = (counted >= 1).float()
                starts = self._empty(len(tokens), 1)[3]
                total += weighted_loss(self.dims, self._way, weights, tokens.long(), targets.long(), full, starts)
                count += float(full.sum())
            losses[kind] = float(total) / max(count, 1.0)
        return losses

    def copies(self) -> list[Tensor]:
        """Return copies of the two vectors, to go back to."""
        return [flat.detach().clone() for flat in self.flats]

    def weights(self, flats: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """Return the weights (of now, or of `copies`) in bf16 on the CPU, by their official keys."""
        halves = [flat.detach().to(torch.bfloat16).cpu() for flat in (self.flats if flats is None else flats)]
        named = self._named(halves)
        return {key: named[key].clone() for key in self._shapes}
