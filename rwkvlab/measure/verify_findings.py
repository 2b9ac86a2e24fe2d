"""What the losses from several starts say about a state: whether it works on this base, and which way round it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from rwkvlab.measure.verify_effects import mean_se

ZERO, STORED, TURNED, RANDOM = "zero", "as stored", "transposed", "random {}"
MIN_TEXTS = 8  # the standard error of fewer means little
SURE = 3.0  # standard errors
T99 = (31.82, 6.96, 4.54, 3.75, 3.36, 3.14, 3.0, 2.9, 2.82)  # quantiles of Student's t for 1, 2 … 9 degrees of freedom
LARGE = 20.0  # times the norm of normal running

Orientation = Literal["as stored", "transposed", "undecided"]


class Finding(NamedTuple):
    """A sentence, and whether it speaks against the files."""

    text: str
    problem: bool = False


class Gains:
    """How much lower the loss is from each start than from zero, in nats a token, text by text."""

    def __init__(self, rows: pd.DataFrame) -> None:
        """Take the rows of `effects`."""
        losses = rows.pivot_table(index="text", columns="start", values="loss", sort=False)
        self.by_start = {str(start): (losses[ZERO] - losses[start]).to_numpy() for start in losses.columns}
        self.randoms = [start for start in self.by_start if start not in (ZERO, STORED, TURNED)]
        self.texts = len(losses)
        means = [self.mean(start) for start in self.randoms]
        self.low, self.high = min(means), max(means)
        kl = rows.groupby("start")["kl"].mean()
        self.kl = {str(start): float(value) for start, value in kl.items()}

    def sure(self, a: str, b: str) -> bool:
        """Whether the loss from `a` is lower than from `b` by more than three standard errors of the difference."""
        mean, se = mean_se(self.by_start[a] - self.by_start[b])
        return self.texts >= MIN_TEXTS and mean > SURE * se

    def beyond_chance(self, start: str) -> bool:
        """Whether `start` surely helps, and more than another random state would in 99 of 100 cases.

        That is the upper end of the 98 % prediction interval of the random states (Student's t) on a scale that is
        linear up to the gain of `start` and logarithmic beyond, since random states can hurt without bound. Where their
        gains are not normal, up to 4 in 100 would pass this, but not the paired tests besides.
        """
        gain, count = self.mean(start), len(self.randoms)
        if gain <= self.high or gain <= 0:
            return False
        means = np.arcsinh(np.array([self.mean(other) for other in self.randoms]) / gain)
        quantile = T99[min(count - 1, len(T99)) - 1]
        limit = means.mean() + quantile * means.std(ddof=1) * (1 + 1 / count) ** 0.5
        return bool(np.arcsinh(1.0) > limit) and all(self.sure(start, other) for other in (ZERO, *self.randoms))

    def mean(self, start: str) -> float:
        """Return the mean gain of a start over the texts."""
        return float(self.by_start[start].mean())


def effect(gains: Gains, way: Orientation) -> Finding:
    """Say whether the state does more on this base than random states with its singular values do."""
    mean, se = mean_se(gains.by_start[STORED])
    kls = [gains.kl[start] for start in gains.randoms]
    kl = gains.kl[STORED]
    if kl == 0 and not gains.by_start[STORED].any():
        return Finding("effect: the state changes nothing: is it all zeros?", True)
    number = f"{abs(mean):.3f} ± {se:.3f} nats a token"
    than = "more than any of them" if kl > max(kls) else "no more than a random state does"
    beside = (
        f"random states with its singular values change the loss by {-gains.high:+.3f} to {-gains.low:+.3f}; it moves"
        f" the next token's distribution by {kl:.3g} nats (KL; random ones by {min(kls):.3g} to {max(kls):.3g}), {than}"
    )
    if gains.beyond_chance(STORED):
        return Finding(f"effect: the state helps by {number}; {beside}")
    causes = "The wrong base model, the wrong way round, or texts unlike those it was tuned on?"
    causes = "It is the other way round." if way == "transposed" else causes
    few = gains.texts < MIN_TEXTS
    if few or (mean > max(gains.high, 0) and way != "transposed"):
        does, more = "helps" if mean > 0 else "hurts", f"at least {MIN_TEXTS}" if few else "more"
        return Finding(f"effect: not sure: the state {does} by {number}: give {more} texts; {beside}", True)
    if gains.sure(ZERO, STORED):
        return Finding(f"effect: the state hurts by {number}; {beside}. {causes}", True)
    return Finding(f"effect: none beyond chance, the loss changes by {-mean:+.3f} ± {se:.3f}; {beside}. {causes}", True)


def way_round(gains: Gains, other_way: str) -> tuple[Orientation, Finding]:
    """Tell which way round the state is; other_way says how to load it transposed.

    Decided only where one way beats the other by more than three standard errors, and helps beyond chance.
    """
    if TURNED not in gains.by_start:
        return "undecided", Finding("orientation: heads are not square, so that only one way round fits")
    mean, se = mean_se(gains.by_start[STORED] - gains.by_start[TURNED])
    if not mean and not se:
        return "undecided", Finding("orientation: cannot tell, both ways round do the same")
    number = f"{abs(mean):.3f} ± {se:.3f} nats a token"
    if gains.sure(STORED, TURNED) and gains.beyond_chance(STORED):
        return "as stored", Finding(f"orientation: right as it is: transposed it would be worse by {number}")
    if gains.sure(TURNED, STORED) and gains.beyond_chance(TURNED):
        return "transposed", Finding(
            f"orientation: it is the other way round, worse by {number} as it is: {other_way}", True
        )
    better = "as it is" if mean > 0 else "transposed,"
    give = "texts= like those it was tuned on" if gains.texts >= MIN_TEXTS else f"texts=, at least {MIN_TEXTS}"
    return "undecided", Finding(f"orientation: cannot tell from these texts ({better} better by {number}): give {give}")


def size(state_norms: Sequence[float], normal: np.ndarray) -> Finding:
    """Say how large the state of each layer is against the one after reading the texts from zeros."""
    ratios = np.asarray(state_norms) / np.maximum(normal, 1e-12)
    layer = int(ratios.argmax())
    text = f"size: at most {ratios[layer]:.3g} times the norm that a state has after these texts (layer {layer})"
    if ratios[layer] <= LARGE:
        return Finding(text)
    return Finding(f"{text}: far above normal running; tuned with too high a rate, or for another base?")
