"""The code of a playground: the Python calls that make the same view."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template
from rwkvlab.widgets.base.code import call, state_code, variable_of
from rwkvlab.widgets.playing.asking import Settings, Turn
from rwkvlab.widgets.playing.columns import Starts
from rwkvlab.widgets.playing.inputs import SAMPLING


def code_of(settings: Settings, turns: Sequence[Turn], starts: Starts) -> str:
    """Return the calls that make a playground of these turns, or where there are none, of these settings.

    The call of `lab.compare` that gives the same answers stands below as a comment; for a chat there is none.
    """
    first = turns[0].settings if turns else settings
    made = call("lab.widgets.Playground", "model", _given(starts.given), **_options(first))
    if not turns:
        return made
    if len(turns) == 1:
        return f"{made}.ask()\n# the same answers without the widget:\n# {_compare(first, starts)}"
    lines, now = [f"playground = {made}", "playground.ask().wait()", "playground.chat = True"], first
    for turn in turns[1:]:
        then = turn.settings
        for name in ("columns", "template", "seed", "sampling", "kl"):
            if getattr(now, name) != getattr(then, name):
                lines.append(f"playground.{name} = {_text(getattr(then, name))}")
        lines.append(f"playground.ask({then.question!r}).wait()")
        now = then
    return "\n".join([*lines, "playground"])


def _options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of a playground that are not its defaults."""
    own = {name: value for name, value in settings.sampling.items() if SAMPLING.get(name) != value}
    every: dict[str, Any] = {
        "question": settings.question,
        "columns": settings.columns,
        "template": _Code(_text(settings.template)),
    }
    every |= {"seed": settings.seed, "sampling": own, "kl": settings.kl, "chat": settings.chat}
    usual = {"question": "", "sampling": {}, "kl": True, "chat": False}
    return {name: value for name, value in every.items() if name not in usual or value != usual[name]}


def _compare(settings: Settings, starts: Starts) -> str:
    arms = ", ".join(f"{name!r}: {_state(name, starts)}" for name in settings.columns)
    own = {name: value for name, value in settings.sampling.items() if SAMPLING.get(name) != value}
    options = {
        "baseline": settings.columns[0],
        "template": _Code(_text(settings.template)),
        "seed": settings.seed,
        **own,
    }
    if settings.kl:
        options["kl"] = True
    return call("lab.compare", "model", repr([settings.question]), f"{{{arms}}}", **options)


def _state(name: str, starts: Starts) -> str:
    """Return how the state of a column is written; no file is read for that."""
    given = starts.given
    if starts.is_zero(name):
        return "None"
    if isinstance(given, Mapping) and name in given:
        return f"{_given(given)}[{name!r}]"
    if isinstance(given, (str, os.PathLike, list, tuple)) and not isinstance(starts.sources.base, dict):
        return f"lab.Shelf({_given(given)}, model)[{name!r}]"
    return state_code(starts.sources[name])


def _given(states: Any) -> str:
    if states is None:
        return "None"
    if isinstance(states, (str, os.PathLike)):
        return repr(os.fspath(states))
    if isinstance(states, (list, tuple)) and all(isinstance(one, (str, os.PathLike)) for one in states):
        return repr([os.fspath(one) for one in states])
    usual = "shelf" if isinstance(states, Shelf) else "state" if isinstance(states, State) else "states"
    return variable_of(states, usual)


def _text(value: Any) -> str:
    return f"lab.{value!r}" if isinstance(value, Template) else repr(value)


class _Code(str):
    """Code already, which `call` writes as it is."""

    def __repr__(self) -> str:
        return str(self)
