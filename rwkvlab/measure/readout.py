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
from rwkvlab.tasks.task import Task

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

PIECE = 128  # tokens whose operands are held at once
Texts = str | Iterable[str | Sequence[int]]


class Moments(NamedTuple):
    """What is left of how some texts read: the sum of r r^T over their tokens, [L,H,K,K], and their number.

    r [K] is what a state in place before the token is multiplied with in that token's read-out. RWKV-5 and 6 read
    before they update, so it is the receptance r_t; RWKV-7 updates first, S <- S P_t + v_t k_t^T with
    P_t = diag(exp w_t) + a_t b_t^T (Peng et al. 2025, arXiv 2503.14456), so it is P_t r_t. From the sum the mean of
    |S r|² over the tokens follows exactly for every S: tr(S M S^T) / tokens.
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
    """Compare what two states would add to the read-out y, were they in place before each token of some texts.

    A state S adds S r_t in RWKV-5 and 6, which read before they update, and S P_t r_t in RWKV-7, which updates first
    (P_t: see `Moments`); everything else that the token meets is held as it is. In the following r_t stands for either.

    texts: one text or several, as text or as ids, each read from the zero state, so that a and b are measured with the
    same receptances; or what `receptance_moments` made of them, to use it again. Returns one row a head: layer, head
    (from 0); readout, the root of the mean over tokens of |(S_b - S_a) r_t|², in state units x receptance; relative
    (readout / that of S_a; inf where that is zero); cosine (of the two read-outs over all tokens, -1..1; nan where
    either is zero). Directions of the keys that no receptance asks for count for nothing. States with NaN or infinity
    are no error: their heads pass through as rows of nan.

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
    """Read texts from the zero state, in pieces that keep memory flat, and return their `Moments`.

    These take 8 K² bytes a head, 67 MB for 32 layers with 64 heads of 64. Raises as `readout_distance` does.
    """
    rows = []
    for at, text in enumerate(listed_texts(texts)):
        try:
            ids = model.encode(text)
        except PromptError as error:
            raise PromptError(f"texts[{at}]: {error}") from error
        if not ids:
            raise PromptError(f"texts[{at}]: empty; there is nothing to read in it")
        rows.append(ids)
    if not rows:
        raise ArgError("texts: empty; give at least one")
    dims = model.dims
    names = ("r", "w", "a", "b") if dims.arch == "x070" else ("r",)
    total = torch.zeros(dims.L, dims.H, dims.K, dims.K, dtype=torch.float64)
    with tqdm(total=sum(map(len, rows)), delay=2, desc="receptances", unit="token", leave=False) as bar:
        for ids in rows:
            state = None
            for at in range(0, len(ids), PIECE):
                piece = ids[at : at + PIECE]
                found = model.trace(piece, state, every=PIECE, keep=names)
                for layer in range(dims.L):
                    r = _asked(*(found[name][layer].double() for name in names))  # [T,H,K]
                    total[layer] += r.permute(1, 2, 0) @ r.transpose(0, 1)
                state = found.final
                bar.update(len(piece))
    if not total.isfinite().all():
        raise NonFiniteError("receptances: NaN or infinity along these texts; the weights are broken")
    return Moments((total + total.mT) / 2, sum(map(len, rows)))


def listed_texts(texts: Any) -> list[Any]:
    """Return several texts, or a single one, as a list; raises ArgError for what is none, a Task among it."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, Task):
        raise ArgError("texts: need a text or a list of texts, got a Task; give task.prompts")
    items = check_items("texts", texts)
    for at, item in enumerate(items):
        if isinstance(item, Task):
            raise ArgError(f"texts[{at}]: need a text, got a Task; give task.prompts as texts")
    return items


def _asked(r: Tensor, w: Tensor | None = None, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """Return what a state before each token is multiplied with: r, or P r of RWKV-7, [T,H,K]."""
    if w is None or a is None or b is None:
        return r
    return w.exp() * r + a * (b * r).sum(-1, keepdim=True)


def readouts(moments: Moments, a: State, b: State) -> dict[str, Tensor]:
    """Return, by name and each [L,H], the root mean squares of S_a r (a), S_b r (b) and their difference (apart).

    And the mean of the scalar product of the first two (dot). All are nan where a head that they need is not finite.
    """
    rows = []
    for M, one, two in zip(moments.total / moments.tokens, a.wkv, b.wkv, strict=True):
        x, y = (_finite(layer.detach().cpu().double()) for layer in (one, two))  # [H,V,K]
        pairs: Any = ((x, x), (y, y), (y - x, y - x), (x, y))
        rows.append(torch.stack([((p @ M) * q).sum((1, 2)) for p, q in pairs]))
    aa, bb, apart, dot = torch.stack(rows, dim=1)
    return {"a": aa.clamp(min=0).sqrt(), "b": bb.clamp(min=0).sqrt(), "apart": apart.clamp(min=0).sqrt(), "dot": dot}


def readout_columns(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the columns readout, relative and cosine, [L,H], for what `readouts` found."""
    apart, product = found["apart"], found["a"] * found["b"]
    relative = torch.where((found["a"] == 0) & ~apart.isnan(), torch.inf, apart / found["a"])
    cosine = (found["dot"] / product.where(product != 0, torch.nan)).clamp(-1, 1)
    return {"readout": apart, "relative": relative, "cosine": cosine}


def _finite(heads: Tensor) -> Tensor:
    """Return heads [H,V,K], all nan where one number is not finite."""
    return heads.where(heads.isfinite().flatten(1).all(1)[:, None, None], torch.nan)
