"""Compare: the same prompts from several initial states side by side, everything else equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from rwkvlab.errors import ArgError, PromptError, show
from rwkvlab.measure.arms import ZERO, States, name_arms
from rwkvlab.measure.comparing.comparison import Comparison
from rwkvlab.measure.comparing.page import describe_model, describe_starts
from rwkvlab.measure.comparing.tokens import Answers
from rwkvlab.model.answering import answer_prompts
from rwkvlab.model.chat import choose_template
from rwkvlab.model.generate import Generation
from rwkvlab.shapes import check_items, check_range
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

ROWS = 128  # generations in one batch, fewer where states are large
BYTES = 2**30  # of states in one batch
COLUMNS = ("prompt", "state", "sample", "text", "tokens", "logprob", "finish")


def compare(
    model: Model,
    prompts: str | Sequence[str],
    states: States,
    *,
    baseline: str | None = None,
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
    kl: bool = False,
) -> Comparison:
    """Answer every prompt from every state; only the state differs between the arms.

    states: a mapping of names, a list of State (named by their cards), a Shelf, or one State. baseline: the name of the
    arm that the others are set against, which goes first; None is the zero state, put in front unless it is there (as
    None, or as a state of zeros). n answers are drawn for each, with the seeds seed, seed + 1, …, the same in every
    arm. template and sampling are those of `Model.chat`, with its defaults. Ctrl-C while answers are written returns
    what there is. kl: read the answers again at once, so that the grid shows how far the starts disagree at each token
    (`Comparison.tokens`); on a CPU this takes about as long as writing them, so that it waits until it is asked for.
    Raises ArgError, PromptError, MismatchError (a state that does not fit).
    """
    texts = [prompts] if isinstance(prompts, str) else check_items("prompts", prompts)
    if odd := [text for text in texts if not isinstance(text, str)]:
        raise ArgError(f"prompts: need texts, got {show(odd[0])}; ids go to generate_batch")
    if not texts:
        raise ArgError("prompts: empty; give at least one")
    check_range("n", n, 1, 10_000, whole=True)
    check_range("seed", seed, 0, 2**63 - 1 - n, whole=True)
    arms = pin(name_arms(states, zero_first=baseline in (None, ZERO)), baseline)
    form = choose_template(template, list(arms.values()))
    for at, text in enumerate(texts):
        _check_prompt(model, form, text, "prompts" if isinstance(prompts, str) else f"prompts[{at}]")
    banned = (ban,) if isinstance(ban, (str, int)) else tuple(ban)
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    sampling |= {"top_k": top_k, "presence": presence, "frequency": frequency}
    jobs = [(text, name, sample) for text in dict.fromkeys(texts) for name in arms for sample in range(n)]
    answers = _write(model, form, arms, jobs, seed, {**sampling, "ban": banned, "stop": stop})
    given = {name: value for name, value in (("ban", banned), ("stop", stop)) if value}
    return assemble(model, form, arms, answers, {"seed": seed, "n": n, **sampling, **given}, kl=kl)


def _check_prompt(model: Model, form: Template, text: str, name: str) -> None:
    """Raise PromptError, by its name, for a prompt that cannot be asked."""
    asked = form.format(text, name)
    try:
        ids = model.encode(asked)
    except PromptError as error:
        raise PromptError(f"{name}: {error}") from error
    if not ids:
        raise PromptError(f"{name}: empty; ask something")


def pin(arms: Mapping[str, State | None], baseline: str | None) -> dict[str, State | None]:
    """Return the arms with the baseline in front; None is the first that is zero, if there is one."""
    if baseline is None:
        zeros = (name for name, s in arms.items() if s is None or not (s.has_shifts or s.wkv.any()))
        baseline = next(zeros, next(iter(arms)))
    elif not isinstance(baseline, str) or baseline not in arms:
        raise ArgError(f"baseline: need one of {', '.join(map(show, arms))}, got {show(baseline)}")
    return {baseline: arms[baseline]} | dict(arms)


def assemble(
    model: Model,
    form: Template,
    arms: Mapping[str, State | None],
    answers: Iterable[tuple[str, str, int, Generation]],
    settings: Mapping[str, Any],
    *,
    kl: bool = False,
) -> Comparison:
    """Make a Comparison of (prompt, arm, sample, what was written) as they come; the first arm is the baseline."""
    rows, ids = [], {}
    for text, name, sample, one in answers:
        rows.append((text, name, sample, one.text, len(one.tokens), sum(one.logprobs), one.finish))
        ids[text, name, sample] = one.tokens
    known = Answers(model, form, arms, ids)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    about, starts = describe_model(model), describe_starts(arms)
    result = Comparison(table, form.name, settings, known.written(), about, starts, known.read)
    if kl and "interrupted" not in set(table["finish"]):
        with suppress(KeyboardInterrupt):  # the answers are there, and can be read again
            _ = result.tokens
    return result


def _write(
    model: Model,
    form: Template,
    arms: Mapping[str, State | None],
    jobs: Sequence[tuple[str, str, int]],
    seed: int,
    sampling: Mapping[str, Any],
) -> Iterator[tuple[str, str, int, Generation]]:
    """Write all answers in batches, with a bar of tokens; after an interrupted one there are no more."""
    dims, most = model.dims, sampling["max_tokens"]
    step = max(1, min(ROWS, BYTES // (4 * dims.L * dims.H * dims.V * dims.K)))
    with tqdm(total=len(jobs) * most, delay=2, desc="answers", unit="token", leave=False) as bar:
        for at in range(0, len(jobs), step):
            part = jobs[at : at + step]
            prompts, starts = [form.format(text) for text, _, _ in part], [arms[name] for _, name, _ in part]
            seeds = [seed + sample for _, _, sample in part]
            done = answer_prompts(model, prompts, starts, form, seed=seeds, on_text=lambda *_: bar.update(), **sampling)
            bar.update((at + len(part)) * most - bar.n)  # answers that ended early count as whole
            yield from ((*job, one) for job, one in zip(part, done, strict=True))
            if any(one.finish == "interrupted" for one in done):
                return
