"""What a StateInspector says and draws of one head, and which numbers it can colour its maps by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rwkvlab.errors import show
from rwkvlab.measure.distance import head_distance
from rwkvlab.measure.influence_report import Influence
from rwkvlab.measure.spectrum import singular_values, spectrum
from rwkvlab.plots.one_head import plot_one_head
from rwkvlab.states.state import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# the columns of `spectrum` and of `head_distance` that maps can show, in the words of a menu
OF_ONE = {
    "norm": "norm",
    "largest": "largest singular value",
    "stable_rank": "stable rank",
    "effective_rank": "effective rank",
    "half_life": "half-life",
}
OF_TWO = {
    "norm": "norm of the difference",
    "relative": "relative difference",
    "cosine": "cosine",
    "key_angle": "angle of the key spaces",
    "value_angle": "angle of the value spaces",
    "rank": "rank of the difference",
}
# read where no text is given, to see how long what a head holds lasts
TEXT = (
    "The moon rose over the quiet harbour, and the old fisherman counted his boats. "
    "月亮升起来了,老渔夫数着他的船。He had counted them every night for forty years."
)


class Head:
    """One head of one state, or of two: `text` says what is known of it, `figure` draws it.

    lasting: what `influence` told of these states, as far as it is known.
    """

    def __init__(self, states: Sequence[State], place: tuple[int, int], lasting: Mapping[State, Influence]) -> None:
        self.place = place
        layer, head = place
        names = [
            show(state.card.name or usual, 40)[1:-1] for state, usual in zip(states, ("state", "other"), strict=False)
        ]
        if len(set(names)) < len(names):
            names = [f"{name} ({at})" for name, at in zip(names, ("first", "second"), strict=False)]
        # each as a state of one head, so that looking costs nothing
        self.states = {
            name: State(state.wkv[layer : layer + 1, head : head + 1].detach().cpu())
            for name, state in zip(names, states, strict=True)
        }
        self.lasting = {name: lasting[state] for name, state in zip(names, states, strict=True) if state in lasting}

    @property
    def text(self) -> str:
        """What is known of the head, in words."""
        said = [f"layer {self.place[0]}, head {self.place[1]}"]
        for name, state in self.states.items():
            row = spectrum(state, first=(1,)).iloc[0]
            most = min(state.wkv.shape[2:])
            said.append(
                f"{name}: norm {row['norm']:.3g}, largest singular value {row['largest']:.3g}, "
                f"effective rank {row['effective_rank']:.3g} of {most}{self._life(name)}"
            )
        if len(self.states) > 1:
            row = head_distance(*self.states.values()).iloc[0]
            said.append(
                f"difference: norm {row['frobenius']:.3g}, relative {row['relative']:.3g}, cosine {row['cosine']:.3g}, "
                f"effective rank {row['rank']:.3g}"
            )
        return "\n".join(said)

    def figure(self, dark: bool) -> Figure:
        """Return a figure of the singular values and, where that is known, of how long the head lasts."""
        layer, head = self.place
        values = singular_values(self.states)
        left = [self._here(found.direct).assign(state=name) for name, found in self.lasting.items()]
        title = f"layer {layer}, head {head}"
        return plot_one_head(values, pd.concat(left) if left else None, title=title, dark=dark)

    def _here(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["layer"] == self.place[0]) & (table["head"] == self.place[1])]

    def _life(self, name: str) -> str:
        """Return in words how long the head lasts, "" where that is not known."""
        if name not in self.lasting:
            return ""
        found = self.lasting[name]
        life = float(self._here(found.half_life)["half_life"].iloc[0])
        if np.isinf(life):
            return f", more than half of it is left after {found.tokens} tokens"
        return "" if np.isnan(life) else f", half of it is gone after {life:g} tokens"
