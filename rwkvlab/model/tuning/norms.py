"""The norm guard: how far the heads of a tuned state are beyond the norms that the model meets in normal running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rwkvlab.model.examples import Encoded

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

READ = 32  # examples that are read for it, at most
TOO_FAR = 10.0  # times the norm of normal running
# a head that writes next to nothing has no scale of its own: its norm counts as this share of the median head's
FLOOR = 0.1


class NormGuard:
    """normal: the norms [L,H] of all heads in normal running, the largest after any of some examples, from zeros."""

    def __init__(self, model: Model, rows: Sequence[Encoded]) -> None:
        met = []
        with torch.no_grad():
            for row in rows[:: -(-len(rows) // READ)]:
                flow = model.begin([None])
                model.run(torch.tensor([row.ids[:-1]]), flow, None)
                met.append(torch.stack([layer[0].norm(dim=(-2, -1)) for layer in flow.wkv]))
        largest = torch.stack(met).amax(0).float()
        floor = max(FLOOR * float(largest.median()), torch.finfo(torch.float32).tiny)
        self.normal = largest.clamp_min(floor)

    def multiple(self, wkv: Tensor) -> float:
        """The norm of a head of wkv [L,H,V,K] over its normal one, of the head where this is largest."""
        return float((wkv.detach().norm(dim=(-2, -1)) / self.normal).amax())

    def finding(self, wkv: Tensor) -> str:
        """What there is to say of a state: nothing, or how many heads are over ten times their norm, and the worst."""
        times = (wkv.detach().norm(dim=(-2, -1)) / self.normal).cpu()
        many = int((times > TOO_FAR).sum())
        if not many:
            return ""
        worst = int(times.argmax())
        layer, head = divmod(worst, times.shape[1])
        heads = f"{many} of {times.numel()} heads over {TOO_FAR:g} times the norm of normal running"
        return f"{heads} (layer {layer} head {head}: {float(times.max()):.3g} times)"
