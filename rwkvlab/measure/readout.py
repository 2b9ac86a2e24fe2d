"""How far two states lie apart as a model reads them: through the receptances that real text produces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, NonFiniteError, PromptError
from rwkvlab.measure.distance import check_pair, floor_pairs, head_table, with_floor
from rwkvlab.shapes import check_items
from rwkvlab.states.fits import check_fits, check_model
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

PIECE = 256  # tokens whose receptances are held at once
Texts = str | Iterable[str | Sequence[int]]


class Moments(NamedTuple):
    """What is left of the receptances r of some texts: the sum of r r^T over their tokens, [L,H,K,K], and their number.

    From it the mean of |S r|² over the tokens follows exactly for every S: tr(S M S^T) / tokens.
    """

    total: Tensor
    tokens: int


def readout_distance(
    model: Model,
    a: State,
    b: State,
    texts: Texts | Moments,
    *,
    floor: Iterable[State | tuple[State, State]] = (),
) -> pd.DataFrame:
    """Compare what two states would add to the read-out y = S r, were they in place before each token of some texts.

    texts: one text or several, as text or as ids, each read from the zero state, so that a and b are measured with the
    same receptances; or what `receptance_moments` made of them, to use it again. Returns one row a head: layer, head
    (from 0); readout, the root of the mean over tokens of |(S_b - S_a) r_t|², in state units x receptance; relative
    (readout / that of S_a; inf where that is zero); cosine (of the two read-outs over all tokens, -1..1; nan where
    either is zero). Directions of the keys that no receptance asks for count for nothing.

    floor as in `head_distance`: adds readout_floor, relative_floor, cosine_floor and beyond (readout / readout_floor).
    Raises MismatchError for states that do not fit the model, PromptError for an empty text, ArgError for no text,
    NonFiniteError where the model's receptances are.
    """
    check_model("model", model)
    check_pair("readout_distance", a, b)
    pairs = [(a, b), *floor_pairs("readout_distance", floor, a, b)]
    for state in {id(state): state for pair in pairs for state in pair}.values():
        check_fits(state, model)
    moments = texts if isinstance(texts, Moments) else receptance_moments(model, texts)
    return with_floor([head_table(readout_columns(readouts(moments, *pair))) for pair in pairs], "readout")


def receptance_moments(model: Model, texts: Texts) -> Moments:
    """Read texts from the zero state, in pieces that keep memory flat, and return the moments of their receptances.

    These take 8 K² bytes a head, 67 MB for 32 layers with 64 heads of 64. Raises as `readout_distance` does.
    """
    rows = [model.encode(text) for text in ([texts] if isinstance(texts, str) else check_items("texts", texts))]
    if not rows:
        raise ArgError("texts: empty; give at least one")
    for at, ids in enumerate(rows):
        if not ids:
            raise PromptError(f"texts[{at}]: empty; there is nothing to read in it")
    dims = model.dims
    total = torch.zeros(dims.L, dims.H, dims.K, dims.K, dtype=torch.float64)
    with tqdm(total=sum(map(len, rows)), delay=2, desc="receptances", unit="token", leave=False) as bar:
        for ids in rows:
            state = None
            for at in range(0, len(ids), PIECE):
                piece = ids[at : at + PIECE]
                found = model.trace(piece, state, every=PIECE, keep=("r",))
                for layer, r in enumerate(found["r"]):  # [T,H,K]
                    total[layer] += r.permute(1, 2, 0).double() @ r.transpose(0, 1).double()
                state = found.final
                bar.update(len(piece))
    if not total.isfinite().all():
        raise NonFiniteError("receptances: NaN or infinity along these texts; the weights are broken")
    return Moments(total, sum(map(len, rows)))


def readouts(moments: Moments, a: State, b: State) -> dict[str, Tensor]:
    """Return, by name and each [L,H], the root mean squares of S_a r (a), S_b r (b) and their difference (apart).

    And the mean of the scalar product of the first two (dot).
    """
    rows = []
    for M, one, two in zip(moments.total / moments.tokens, a.wkv, b.wkv, strict=True):
        x, y = (layer.detach().cpu().double() for layer in (one, two))  # [H,V,K]
        pairs: Any = ((x, x), (y, y), (y - x, y - x), (x, y))
        rows.append(torch.stack([((p @ M) * q).sum((1, 2)) for p, q in pairs]))
    aa, bb, apart, dot = torch.stack(rows, dim=1)
    return {"a": aa.clamp(min=0).sqrt(), "b": bb.clamp(min=0).sqrt(), "apart": apart.clamp(min=0).sqrt(), "dot": dot}


def readout_columns(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the columns readout, relative and cosine, [L,H], for what `readouts` found."""
    apart, product = found["apart"], found["a"] * found["b"]
    relative = torch.where(found["a"] == 0, torch.inf, apart / found["a"])
    cosine = (found["dot"] / product.where(product != 0, torch.nan)).clamp(-1, 1)
    return {"readout": apart, "relative": relative, "cosine": cosine}
