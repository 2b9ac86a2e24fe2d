"""Compare: the same prompts from several initial states side by side, everything else equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.arms import States, name_arms
from rwkvlab.measure.grid import html_grid, text_grid
from rwkvlab.model.chat import chat_batch, choose_template
from rwkvlab.shapes import check_items, check_range
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 128  # generations in one batch, fewer where states are large
BYTES = 2**30  # of states in one batch
COLUMNS = ("prompt", "state", "sample", "text", "tokens", "logprob", "finish")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` returns; shown as a grid in a notebook, as text elsewhere.

    table: one row a (prompt, state, sample): prompt, state (the arm's name), sample (from 0), text, tokens (how many
    were drawn), logprob (natural, of all of them under the model itself) and finish ("stop", "end", "length" …).
    template: the name of the one that was used. settings: the sampling of every arm; sample i has seed + i.
    """

    table: pd.DataFrame
    template: str
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"{text_grid(*self._grid())}\n{show(self._caption(), 1000)[1:-1]}"

    def _repr_html_(self) -> str:
        return html_grid(*self._grid(), self._caption())

    def _grid(self) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """Return the arms, and for each (prompt, sample) its label and one text an arm."""
        arms = list(dict.fromkeys(self.table["state"]))
        many = self.table["sample"].nunique() > 1
        rows = []
        for (prompt, sample), part in self.table.groupby(["prompt", "sample"], sort=False):
            texts = dict(zip(part["state"], part["text"], strict=True))
            label = f"{prompt} [{sample}]" if many else f"{prompt}"
            rows.append((label, [texts.get(arm, "") for arm in arms]))
        return arms, rows

    def _caption(self) -> str:
        sampling = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"template {self.template}, {sampling}; every state with the same"


def compare(
    model: Model,
    prompts: str | Sequence[str],
    states: States,
    *,
    template: str | Template = "world",
    n: int = 1,
    seed: int = 0,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_p: float = 0.2,
    top_k: int = 0,
    presence: float = 0.3,
    frequency: float = 0.3,
    ban: Iterable[int | str] = (),
    stop: str | Sequence[str] | None = None,
) -> Comparison:
    """Answer every prompt from every state; only the state differs between the arms.

    states: a mapping of names, a list of State (named by their cards), a Shelf, or one State; the zero state is put in
    front unless it is there (as None, or as a state of zeros). n answers are drawn for each, with the seeds seed,
    seed + 1, …, the same in every arm. template and sampling are those of `Model.chat`, with its defaults. Ctrl-C
    while answers are written returns what there is. Raises ArgError, PromptError, MismatchError (a state that does not
    fit).
    """
    texts = [prompts] if isinstance(prompts, str) else check_items("prompts", prompts)
    if odd := [text for text in texts if not isinstance(text, str)]:
        raise ArgError(f"prompts: need texts, got {show(odd[0])}; ids go to generate_batch")
    if not texts:
        raise ArgError("prompts: empty; give at least one")
    check_range("n", n, 1, 10_000, whole=True)
    check_range("seed", seed, 0, 2**63 - 1 - n, whole=True)
    arms = name_arms(states, zero_first=True)
    form = choose_template(template, list(arms.values()))
    banned = (ban,) if isinstance(ban, (str, int)) else tuple(ban)
    jobs = [(text, name, sample) for text in dict.fromkeys(texts) for name in arms for sample in range(n)]
    dims = model.dims
    step = max(1, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)))
    rows = []
    for at in range(0, len(jobs), step):
        part = jobs[at : at + step]
        done = chat_batch(
            model, [text for text, _, _ in part], [arms[name] for _, name, _ in part], template=form,
            max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, presence=presence,
            frequency=frequency, ban=banned, stop=stop, seed=[seed + sample for _, _, sample in part],
        )  # fmt: skip
        for (text, name, sample), one in zip(part, done, strict=True):
            rows.append((text, name, sample, one.text, len(one.tokens), sum(one.logprobs), one.finish))
        if any(one.finish == "interrupted" for one in done):
            break
    settings: dict[str, Any] = {
        "seed": seed,
        "n": n,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
    }
    settings |= {"top_k": top_k, "presence": presence, "frequency": frequency}
    settings |= {name: value for name, value in (("ban", banned), ("stop", stop)) if value}
    return Comparison(pd.DataFrame(rows, columns=list(COLUMNS)), form.name, settings)
