"""How far two states lie apart, head by head."""

from __future__ import annotations

import pandas as pd
import torch

from rwkvlab.errors import ArgError, MismatchError, show
from rwkvlab.states.state import State


def head_distance(a: State, b: State) -> pd.DataFrame:
    """Compare the WKV matrices of two states.

    Returns one row a head: layer, head (from 0), frobenius (norm of b - a, in state units), relative (frobenius / norm
    of a; inf where a is zero) and cosine (-1..1; nan where either is zero). Raises MismatchError, a ValueError, where
    the two come from models of different shape or architecture. Token-shifts are not compared.
    """
    for name, state in (("a", a), ("b", b)):
        if not isinstance(state, State):
            raise ArgError(f"head_distance: {name}: need a State, got {type(state).__name__}")
    if a.wkv.shape != b.wkv.shape:
        raise MismatchError(
            f"head_distance: shapes differ, [L,H,V,K] {list(a.wkv.shape)} and {list(b.wkv.shape)};"
            " compare states of one model"
        )
    if a.card.arch and b.card.arch and a.card.arch != b.card.arch:
        raise MismatchError(
            f"head_distance: architectures differ, {show(a.card.arch)} and {show(b.card.arch)};"
            " compare states of one model"
        )
    one, two = (state.wkv.detach().cpu().double().flatten(2) for state in (a, b))  # [L,H,V*K]
    norm_a, norm_b = one.norm(dim=-1), two.norm(dim=-1)
    frobenius = (two - one).norm(dim=-1)
    relative = torch.where(norm_a > 0, frobenius / norm_a, torch.inf)
    # each side is scaled first, so that tiny states do not underflow
    unit_a, unit_b = one / norm_a[..., None], two / norm_b[..., None]
    cosine = (unit_a * unit_b).sum(dim=-1).clamp(-1.0, 1.0)  # 0/0 leaves nan where either is zero
    layers, heads = norm_a.shape
    return pd.DataFrame(
        {
            "layer": torch.arange(layers).repeat_interleave(heads).numpy(),
            "head": torch.arange(heads).repeat(layers).numpy(),
            "frobenius": frobenius.flatten().numpy(),
            "relative": relative.flatten().numpy(),
            "cosine": cosine.flatten().numpy(),
        }
    )
