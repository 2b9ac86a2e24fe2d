"""What the numbers of a file are like: norms, extremes, and how many are NaN or infinite; one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Values:
    """Norms, extremes and non-finite values; norms and extremes are those of the finite values.

    layer_norms are the Frobenius norms of a state's layers [L] (empty for weights), low and high the extremes, where
    says which tensor or head holds the one of larger magnitude; nonfinite counts NaN and infinite values,
    first_nonfinite says where the first of them is.
    """

    layer_norms: tuple[float, ...] = ()
    low: float = math.nan
    high: float = math.nan
    where: str = ""
    nonfinite: int = 0
    first_nonfinite: str = ""

    @property
    def largest(self) -> float:
        """The largest magnitude; NaN where nothing is finite."""
        return max(abs(self.low), abs(self.high))

    def add(self, name: str, tensor: Tensor, *, heads: bool = False) -> Values:
        """Return the values with those of one more tensor; with heads its first axis is named in `where`."""
        tensor = tensor.float() if tensor.dtype == torch.float64 else tensor  # as every loader takes it
        low, high = (float(value) for value in torch.aminmax(tensor)) if tensor.numel() else (math.nan, math.nan)
        count, first = self.nonfinite, self.first_nonfinite
        if tensor.numel() and not (math.isfinite(low) and math.isfinite(high)):
            bad = ~tensor.isfinite()
            first = first or f"{name}, at {bad.nonzero()[0].tolist()}"
            count += int(bad.sum())
            kept = tensor[~bad]
            low, high = (float(value) for value in torch.aminmax(kept)) if kept.numel() else (math.nan, math.nan)
        larger = max(abs(low), abs(high)) > (self.largest if self.where else -1)
        where = self.where
        if larger:
            places = tensor.float().nan_to_num(0, 0, 0).flatten(1).abs().amax(1) if heads else None
            where = f"{name}, head {int(places.argmax())}" if places is not None else name
        return replace(
            self,
            low=low if math.isnan(self.low) else min(self.low, low) if not math.isnan(low) else self.low,
            high=high if math.isnan(self.high) else max(self.high, high) if not math.isnan(high) else self.high,
            where=where,
            nonfinite=count,
            first_nonfinite=first,
        )

    def spoilt(self, name: str, count: int) -> Values:
        """Return the values with `count` more that are not finite."""
        return replace(self, nonfinite=self.nonfinite + count, first_nonfinite=self.first_nonfinite or name)


def values_of_layers(layers: Iterable[Tensor]) -> Values:
    """Return the values of a state, given as its layers [H,V,K] or [H,K,V] of any float dtype."""
    found, norms = Values(), []
    for index, layer in enumerate(layers):
        found = found.add(f"layer {index}", layer, heads=True)
        norms.append(float(layer.float().double().nan_to_num(0, 0, 0).norm()))
    return replace(found, layer_norms=tuple(norms))


def values_of_weights(tensors: Iterable[tuple[str, Tensor]]) -> Values:
    """Return the values of a model's weights, given as (name, tensor)."""
    found = Values()
    for name, tensor in tensors:
        found = found.add(name, tensor)
    return found
