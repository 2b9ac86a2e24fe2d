"""Controls: states that share everything with a given one but what it learned, to show that an effect is not chance."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from rwkvlab.errors import NonFiniteError, StateOpError, show
from rwkvlab.shapes import check_range
from rwkvlab.states.card import StateCard, parents_of, term_of
from rwkvlab.states.state import State


def random_like(state: State, seed: int = 0) -> State:
    """Return a state whose heads have the singular values of `state` and random singular vectors (Haar, seeded).

    So each head keeps its Frobenius norm, its rank and its spectrum, and nothing else; each token-shift keeps its
    length. The same seed gives the same state. Raises ArgError for a seed that is not a whole number >= 0,
    NonFiniteError for a state with NaN or infinity in it.
    """
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    generator = torch.Generator().manual_seed(seed)
    wkv = state.wkv.detach().cpu().double()
    if not torch.isfinite(wkv).all():
        name = show(state.card.name or "state")
        raise NonFiniteError(f"random_like({name}): holds NaN or infinity, so there are no singular values to keep")
    spectrum = torch.linalg.svdvals(wkv)  # [L,H,min(V,K)]
    rank = spectrum.shape[-1]
    left = _haar(wkv.shape[:2], wkv.shape[2], generator)[..., :rank]  # [L,H,V,rank]
    right = _haar(wkv.shape[:2], wkv.shape[3], generator)[..., :rank]  # [L,H,K,rank]
    shifts = [_turned(shift.detach().cpu().double(), generator) for shift in (state.att_shift, state.ffn_shift)]
    made = State(
        (left * spectrum[..., None, :]) @ right.mT,
        att_shift=shifts[0],
        ffn_shift=shifts[1],
        card=_card(state, f"random_like({{}}, seed={seed})"),
    )
    return made.to(state.wkv.device)


def transposed(state: State) -> State:
    """Return a state with every head transposed (values and keys change places); the token-shifts stay.

    It is what a file in the other orientation looks like. Raises StateOpError where heads are not square.
    """
    _, _, values, keys = state.wkv.shape
    if values != keys:
        name = show(state.card.name or "state")
        raise StateOpError(f"transposed({name}): need square heads, got V={values} K={keys}; use random_like instead")
    return state.replace(wkv=state.wkv.mT, card=_card(state, "transposed({})"))


def shuffled(state: State, seed: int = 0) -> State:
    """Return a state with every head at another's place, of any layer (a random cycle: Sattolo 1986; seeded).

    So all heads are there, and none is where it was; the token-shifts stay. Raises ArgError for a seed that is not a
    whole number >= 0, StateOpError for a state of one head.
    """
    check_range("seed", seed, 0, 2**63 - 1, whole=True)
    heads = state.wkv.flatten(0, 1)  # [L*H,V,K]
    if len(heads) == 1:
        raise StateOpError(f"shuffled({show(state.card.name or 'state')}): has one head; use random_like instead")
    rng, places = random.Random(seed), list(range(len(heads)))
    for last in range(len(places) - 1, 0, -1):
        other = rng.randrange(last)
        places[last], places[other] = places[other], places[last]
    return state.replace(wkv=heads[places].view_as(state.wkv), card=_card(state, f"shuffled({{}}, seed={seed})"))


def _haar(heads: tuple[int, ...], size: int, generator: torch.Generator) -> Tensor:
    """Return random orthogonal matrices [L,H,size,size] (QR of a Gaussian, signs made unique: Mezzadri 2007)."""
    gaussian = torch.randn(*heads, size, size, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]


def _turned(shift: Tensor, generator: torch.Generator) -> Tensor:
    direction = torch.randn(shift.shape, generator=generator, dtype=torch.float64)
    return direction * (shift.norm(dim=-1, keepdim=True) / direction.norm(dim=-1, keepdim=True))


def _card(state: State, recipe: str) -> StateCard:
    parents = parents_of(state)
    return state.card.replace(name="", recipe=recipe.format(term_of(state)), parents=parents, source="", notes=())
