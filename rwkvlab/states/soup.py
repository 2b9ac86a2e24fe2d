"""Soup: the states of texts that were read apart become, nearly, the state of having read them one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rwkvlab.errors import ArgError, NonFiniteError, StateOpError
from rwkvlab.shapes import check_items, check_shape
from rwkvlab.states.card import parents_of, term_of
from rwkvlab.states.fits import check_alike, common_card
from rwkvlab.states.state import State


@dataclass(frozen=True, eq=False)
class Passage:
    """A text that was read: the state after it, and what its reading does to a state that was there before.

    transition [L,H,K,K]: the product P of the transitions of all its tokens, in their order; a WKV matrix S becomes S P
    besides what is written. fresh: whether it was read from WKV matrices of zeros, so that `state` holds nothing else.
    tokens: how many. Made by `passage`.
    """

    state: State
    transition: Tensor
    tokens: int
    fresh: bool = True

    def __repr__(self) -> str:
        layers, heads, _, keys = self.state.wkv.shape
        start = "zeros" if self.fresh else "a state"
        return f"<Passage of {self.tokens} tokens, read from {start}, L{layers} H{heads} K{keys}>"


def soup(passages: Sequence[Passage]) -> State:
    """Return the state that reading the passages one after the other would leave, were their inputs as read apart.

        S = S_n + S_(n-1) P_n + S_(n-2) P_(n-1) P_n + …

    after State Soup (Pióro et al. 2024, arXiv:2406.08423), whose models have a decay a channel, as RWKV-5 and 6 do; in
    RWKV-7 P_i is a [K,K] matrix a head. The order counts: what was read earlier has decayed more. Exact in layer 0
    where each passage began from the token-shifts of the one before it. Above, the inputs of a layer depend on what was
    read before, and it is an approximation: on the bundled micro model, for two to four pieces of one task, the upper
    layer is 16 to 36 % off (a plain sum 44 to 104 %, the mean 54 to 87 %).

    The token-shifts are those of the last passage. All but the first must have been read from zeros (their token-shifts
    aside). Raises ArgError, StateOpError, MismatchError, NonFiniteError.
    """
    parts = check_items("passages", passages)
    if not parts:
        raise StateOpError("soup: no passages; give at least one, from passage(model, text)")
    for at, part in enumerate(parts):
        if not isinstance(part, Passage):
            raise ArgError(f"passages[{at}]: need a Passage, got {type(part).__name__}; make one with passage()")
        layers, heads, _, keys = part.state.wkv.shape
        check_shape(f"passages[{at}].transition", part.transition, L=layers, H=heads, K=keys, K2=keys)
        check_alike(parts[0].state, part.state, "soup")
        for other in parts[:at]:  # every pair: the first may not say what it was made on
            check_alike(other.state, part.state, "soup")
        if at and not part.fresh:
            raise StateOpError(f"passages[{at}]: was read from a state; all but the first must be read from zeros")
    device = parts[0].state.wkv.device
    wkv = parts[0].state.wkv.double()
    for part in parts[1:]:
        wkv = wkv @ part.transition.to(device, torch.float64) + part.state.wkv.to(device, torch.float64)
    if not torch.isfinite(wkv).all():
        raise NonFiniteError("soup: the result is not finite; check the passages that went in")
    states = [part.state for part in parts]
    recipe = f"soup({', '.join(map(term_of, states))})"
    card = common_card(states, recipe, [name for state in states for name in parents_of(state)])
    end = states[-1].to(device)
    return State(wkv, att_shift=end.att_shift, ffn_shift=end.ffn_shift, card=card)
