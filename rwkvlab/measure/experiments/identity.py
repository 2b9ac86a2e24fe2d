"""What an experiment is: everything that its numbers depend on, in a form that can be written down and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import show
from rwkvlab.measure.experiments.parts import Part, continuation
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import get_template
from rwkvlab.tensorfile import tensor_digest

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

MARK = "experiment"
FORMAT = 2


def identity(
    model: Model,
    states: Mapping[str, State | None],
    tasks: Sequence[Task],
    parts: Sequence[Part],
    **settings: int | None,
) -> dict[str, Any]:
    """Return what a run is, ready for JSON: settings, how it is cut, and model, vocabulary, states, tasks by digest.

    What a judge of style does is not in it: texts are judged anew each time.
    """
    weights, vocabulary = model.digests
    found = {
        "rwkvlab": MARK,
        "format": FORMAT,
        "model": model.card.fingerprint,
        "weights": weights,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "tokenizer": str(model.tokenizer.name),
        "vocabulary": vocabulary or _ids_digest(model, tasks),
        "states": [[name, _state_digest(state)] for name, state in states.items()],
        "tasks": [[str(task.name), _task_digest(task)] for task in tasks],
        **settings,
        "parts": _digest([[part.names, part.questions, part.answers, part.max_tokens] for part in parts]),
    }
    return json.loads(json.dumps(found))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say in which fields one run, read from a file, differs from another; nothing where they are one."""
    fields = {key: (there.get(key), want) for key, want in here.items()}
    found = [f"{key}: {_difference(*pair)}" for key, pair in fields.items() if pair[0] != pair[1]]
    return found if len(found) < 2 else [text for text in found if not text.startswith("parts:")]


def _difference(there: Any, here: Any) -> str:
    if not _named(there) or not _named(here):
        return f"{show(there, 20)} there, {show(here, 20)} here"
    old, new = dict(there), dict(here)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return f"{show(', '.join(names), 60)} differ" if names else "another order"


def _named(side: Any) -> bool:
    """Whether this is a list of (name, digest)."""
    if not isinstance(side, list):
        return False
    return all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in side)


def _state_digest(state: State | None) -> str:
    if state is None:
        return "zero"
    return tensor_digest({"wkv": state.wkv, "att_shift": state.att_shift, "ffn_shift": state.ffn_shift})


def _ids_digest(model: Model, tasks: Sequence[Task]) -> str:
    """Return a digest of all ids that are read, where a tokenizer cannot be looked into."""
    texts: dict[str, None] = {}
    for task in tasks:
        form = get_template(task.template)
        for example in task:
            answers = (continuation(form, text) for text in (example.answer, *example.choices) if text)
            texts.update(dict.fromkeys((form.format(example.prompt), *answers)))
    return _digest([model.encode(text) for text in texts])


def _task_digest(task: Task) -> str:
    form = get_template(task.template)
    shape = [form.prompt, form.lead, form.stop, form.separator, form.clean]
    return _digest([task.kind, task.prompts, task.answers, task.choices, task.normalise, shape])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
