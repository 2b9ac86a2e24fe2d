"""What a state is made of: singular values, ranks and energy of every head, norms of heads and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.arms import States, name_arms
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.state import State


def spectrum(states: States, first: Sequence[int] = (1, 2, 4, 8)) -> pd.DataFrame:
    """Return how large and how many-sided every head of a state is, from its singular values sigma_1 >= sigma_2 …

    states: a State; or several, as a mapping by name (a Shelf is read one state at a time), or a list. Returns one row
    a head: [state (the name, where several were given),] layer, head (from 0), norm (Frobenius, state units), largest
    (sigma_1, state units), stable_rank (norm² / sigma_1²), effective_rank (exp of the entropy of sigma / sum sigma, Roy
    & Vetterli 2007), both 1 to min(V, K), and energy_1, energy_2 … for each r in `first`: the share (0..1) of the
    squared norm in the first r directions, 1 where there are not more. A zero head has ranks 0 and energies nan. NaN
    and infinity are no error: such a head passes through as a row of nan. Raises ArgError for what is not a state,
    or a number below 1.
    """
    counts = [int(check_range("first", r, 1, 2**31, whole=True)) for r in check_items("first", first)]

    def table(state: State) -> dict[str, Tensor]:
        sigma = _sigma(state)  # [L,H,R]
        squares = sigma.square()
        energy = squares.sum(-1)
        columns = head_columns(energy) | {"norm": energy.sqrt(), "largest": sigma[..., 0]}
        columns["stable_rank"] = _over(energy, squares[..., 0]).where(energy != 0, 0)
        columns["effective_rank"] = effective_rank(sigma)
        columns |= {f"energy_{r}": _over(squares[..., :r].sum(-1), energy).clamp(max=1) for r in counts}
        return columns

    return _tables("spectrum", states, table)


def singular_values(states: States) -> pd.DataFrame:
    """Return every singular value: [state,] layer, head, index (from 1), value (state units), energy.

    energy is the share (0..1) of the head's squared norm in this direction and those before it; nan in a zero head.
    A head has min(V, K) of them: 131,072 rows for a state of 32 layers with 64 heads of 64. States are taken, and
    errors raised, as in `spectrum`.
    """

    def table(state: State) -> dict[str, Tensor]:
        sigma = _sigma(state)
        sums = sigma.square().cumsum(-1)
        columns = {
            name: column.repeat_interleave(sigma.shape[-1]) for name, column in head_columns(sigma[..., 0]).items()
        }
        columns["index"] = torch.arange(1, sigma.shape[-1] + 1).repeat(sigma.shape[:2].numel())
        return columns | {"value": sigma, "energy": _over(sums, sums[..., -1:])}

    return _tables("singular values", states, table)


def norms(states: States, per: str = "head") -> pd.DataFrame:
    """Return Frobenius norms, in state units; NaN or infinite where the state holds such.

    per="head": [state,] layer, head, norm. per="layer": [state,] layer, norm (of all its heads together), att_shift,
    ffn_shift (lengths of the token-shifts, 0 in tuned states). States are taken as in `spectrum`; raises ArgError.
    """
    if per not in ("head", "layer"):
        raise ArgError(f'per: need "head" or "layer", got {show(per)}')

    def table(state: State) -> dict[str, Tensor]:
        found = frobenius(state)
        if per == "head":
            return head_columns(found) | {"norm": found}
        shifts = {name: getattr(state, name).detach().cpu().double().norm(dim=1) for name in ("att_shift", "ffn_shift")}
        return {"layer": torch.arange(len(found)), "norm": found.norm(dim=1), **shifts}

    return _tables("norms", states, table)


def frobenius(state: State) -> Tensor:
    """Return the norm of every head, [L,H] float64 on the CPU; NaN or infinite where it holds such."""
    return torch.stack([layer.detach().cpu().flatten(1).double().norm(dim=1) for layer in state.wkv])


def svdvals(matrices: Tensor) -> Tensor:
    """Return the singular values [...,min(V,K)] of matrices [...,V,K], float64 on the CPU, largest first.

    Those of a matrix with NaN or infinity are nan.
    """
    matrices = matrices.detach().cpu().double()
    sound = matrices.isfinite().flatten(-2).all(-1)[..., None]  # LAPACK refuses the others
    return torch.linalg.svdvals(matrices.where(sound[..., None], 0)).where(sound, torch.nan)


def effective_rank(sigma: Tensor) -> Tensor:
    """Return exp of the entropy of sigma / sum sigma, for singular values [...,R]; 0 where all are zero."""
    total = sigma.sum(-1, keepdim=True)
    share = _over(sigma, total)
    return (-torch.special.xlogy(share, share).sum(-1)).exp().where(total[..., 0] != 0, 0)


def _sigma(state: State) -> Tensor:
    """Return the singular values [L,H,min(V,K)] of a state, a layer at a time, so that no large copy is made."""
    layers = tqdm(state.wkv, delay=2, desc="singular values", unit="layer", leave=False)
    return torch.stack([svdvals(layer) for layer in layers])


def _over(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, nan where whole is 0, without a warning."""
    return part / whole.where(whole != 0, torch.nan)


def head_columns(like: Tensor) -> dict[str, Tensor]:
    """Return the columns layer and head for numbers [L,H]."""
    layers, heads = like.shape
    return {"layer": torch.arange(layers).repeat_interleave(heads), "head": torch.arange(heads).repeat(layers)}


def _tables(what: str, states: States, table: Callable[[State], dict[str, Tensor]]) -> pd.DataFrame:
    """Return the tables of all states under one another, with their names in front where several were given."""
    single = isinstance(states, State)
    known = len(states) if hasattr(states, "__len__") else None  # type: ignore[arg-type]
    alone = single or known == 1
    parts = []
    for name, state in tqdm(_each(states), total=known, delay=2, desc=what, leave=False, disable=alone):
        columns = {key: column.flatten().numpy() for key, column in table(state).items()}
        rows = len(columns["layer"])
        parts.append(pd.DataFrame(columns if single else {"state": np.full(rows, name, dtype=object), **columns}))
    if not parts:
        raise ArgError("states: empty; give at least one State")
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def _each(states: States) -> Iterator[tuple[str, State]]:
    """Yield names and states; those of a mapping only when it is their turn, so that they need not fit together."""
    pairs: Iterable[tuple[Any, Any]]
    if states is None:
        raise ArgError("states: need a State, or several as a mapping, a list or a Shelf, got None")
    if isinstance(states, Mapping):
        pairs = states.items()
    else:
        if isinstance(states, Iterable) and not isinstance(states, (State, str, bytes)):
            states = list(states)
            for at, state in enumerate(states):
                if not isinstance(state, State):
                    raise ArgError(f"states[{at}]: need a State, got {type(state).__name__}; zeros are model.zero()")
        pairs = name_arms(states, zero_first=False).items()
    for name, state in pairs:
        if not isinstance(state, State):
            got = type(state).__name__
            raise ArgError(f"states: {show(name)}: need a State, got {got}; zeros are model.zero()")
        yield str(name), state
