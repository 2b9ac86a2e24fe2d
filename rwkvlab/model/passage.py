"""Passage: a text read once, with the product of the transitions that it would work on an earlier state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import PromptError
from rwkvlab.model.flow import row_state
from rwkvlab.model.parts import Way
from rwkvlab.model.replay import replay
from rwkvlab.states.soup import Passage
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

SEGMENT = 1024  # tokens read at once


def passage(model: Model, text: str | Sequence[int], state: State | None = None) -> Passage:
    """Read `text` (or ids) from `state` (None: zeros), and keep the product of its transitions [L,H,K,K], for `soup`.

    The product falls out of the kernel: an identity is carried along with nothing written. To begin with the
    token-shifts of an earlier passage and without its matrices, which is what `soup` wants of all but the first, give
    `earlier.state.replace(wkv=0 * earlier.state.wkv)`. Memory does not grow with the text; a bar shows after two
    seconds. Raises PromptError for an empty text, MismatchError for a state that does not fit.
    """
    ids, dims = model.encode(text), model.dims
    if not ids:
        raise PromptError("text: empty; a passage has at least one token")
    products = [torch.eye(dims.K, device=model.device).expand(1, dims.H, -1, -1).contiguous() for _ in range(dims.L)]
    held: dict[str, Tensor] = {}

    def tap(layer: int, name: str, tensor: Tensor) -> None:
        held[name] = tensor
        if name == "y":  # the last to be reported of a layer
            # K rows stand where a state has V; their values are left out, so that those of any shape will do
            products[layer] = replay({**held, "v": held["k"]}, products[layer], writes=False)[1]
            held.clear()

    with torch.no_grad():
        flow, way = model.begin([state]), Way(backend=model._backend, tap=tap)
        for part in tqdm(torch.tensor([ids]).split(SEGMENT, dim=1), delay=2, desc="passage", leave=False):
            model.run(part, flow, None, way)
    fresh = state is None or not bool(state.wkv.any())
    transition = torch.stack([product[0] for product in products]).cpu()
    return Passage(row_state(model, flow, 0, state, len(ids)), transition, len(ids), fresh)
