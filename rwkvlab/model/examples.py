"""Training examples for `tune`: pairs, texts and conversations become token ids and what of them the loss counts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rwkvlab.errors import ArgError, PromptError, TuneError, show
from rwkvlab.shapes import check_range
from rwkvlab.tasks.templates import Template, get_template

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

END_OF_TEXT = 0
_FORMS = 'a (prompt, answer) pair, a text, or {"prompt" or "question": …, "answer": …}, {"text": …}, {"messages": […]}'

# what answers prompts: their ids to the ids of each answer, and whether it came to an end
Write = Callable[[list[list[int]]], list[tuple[list[int], bool]]]


@dataclass(frozen=True)
class Encoded:
    """Token ids, the end of text (id 0) last, and which of them the loss counts: never the first."""

    ids: list[int]
    wanted: list[bool]


def encode_examples(
    model: Model,
    examples: Iterable[Any],
    template: str | Template = "",
    name: str = "examples",
    write: Write | None = None,
) -> list[Encoded]:
    """Return the examples as token ids. Raises TuneError that names the first one that cannot be used.

    Of a pair the answer counts and the end of text after it, of a text all but its first token, of a conversation
    what the assistant says, its turns written in `template` ("": world). A mapping of a prompt alone is answered by
    `write`, where there is one: of an answer that came to no end, the end does not count.
    """
    if isinstance(examples, str | bytes | Mapping) or not isinstance(examples, Iterable):
        raise TuneError(f"{name}: need a list of (prompt, answer) pairs or texts, got {show(examples)}")
    form = get_template(template or "world")
    found = []
    asked: dict[int, list[int]] = {}
    for number, example in enumerate(examples):
        where = f"{name}[{number}]"
        try:
            if write is not None and isinstance(example, Mapping) and set(example) == {"prompt"}:
                asked[number] = _tokens(model, _text(example, "prompt", where), where)
                found.append(Encoded([], []))
            else:
                found.append(_encode(model, _turns(example, form, where), where))
        except PromptError as error:
            raise TuneError(f"{where}: {error}") from error
    if not found:
        raise TuneError(f"{name}: empty; give at least one (prompt, answer) pair or text")
    if write is not None and asked:
        for (number, ids), (told, ended) in zip(asked.items(), write(list(asked.values())), strict=True):
            found[number] = Encoded([*ids, *told, END_OF_TEXT], [False] * len(ids) + [True] * len(told) + [ended])
    return found


def parted(
    model: Model,
    examples: Iterable[Any],
    held_out: Iterable[Any] | float | None,
    template: str | Template,
    seed: int,
    write: Write | None = None,
) -> tuple[list[Encoded], list[Encoded]]:
    """The examples to train on, and those held out."""
    found = encode_examples(model, examples, template, write=write)
    if held_out is None:
        return found, []
    if not isinstance(held_out, int | float):
        return found, encode_examples(model, held_out, template, "held_out", write)
    share = check_range("held_out", held_out, 0, 1)
    count = max(1, round(share * len(found)))
    if not 0 < share < 1 or count >= len(found):
        raise ArgError(
            f"held_out: {held_out} of {len(found)} examples leaves none to train on, or none apart; give more "
            "examples, or hold none out"
        )
    order = random.Random(seed).sample(range(len(found)), len(found))
    return [found[i] for i in sorted(order[count:])], [found[i] for i in sorted(order[:count])]


def parts_of(row: Encoded) -> tuple[list[int], list[int]]:
    """Return the ids of the first prompt of an example, and of the answer to it.

    Of a text the two halves; a pair whose prompt is one token looks the same here.
    """
    ids, wanted = row.ids, [*row.wanted, False]
    start = wanted.index(True) if True in row.wanted else len(ids) - 1
    end = wanted.index(False, start)
    if start == 1 and end == len(ids):
        start = max(1, len(ids) // 2)
    return ids[:start], [token for token in ids[start:end] if token != END_OF_TEXT]


def batches(pairs: Sequence[Encoded], size: int, seed: int, skip: int = 0) -> Iterator[list[Encoded]]:
    """Yield batches for ever: every example once in each round, a new order in every round.

    The first `skip` are left out: the same batches come as after having taken them.
    """
    rng = random.Random(seed)
    queue: list[Encoded] = []
    at = skip * size
    while at >= len(pairs):  # whole rounds
        rng.sample(pairs, len(pairs))
        at -= len(pairs)
    while True:
        while len(queue) - at < size:
            queue, at = [*queue[at:], *rng.sample(pairs, len(pairs))], 0 if queue else at
        yield queue[at : at + size]
        at += size


def _turns(example: Any, form: Template, where: str) -> Sequence[tuple[str | None, str]]:
    """An example as (prompt, answer) turns; a text is an answer to nothing."""
    if isinstance(example, str):
        return [(None, example)]
    if isinstance(example, Mapping):
        keys = set(example)
        if {"prompt", "answer"} <= keys:
            return [(_text(example, "prompt", where), _text(example, "answer", where))]
        if {"question", "answer"} <= keys:
            return [form.example(_text(example, "question", where), _text(example, "answer", where))]
        if "messages" in keys:
            return _conversation(example["messages"], form, where)
        if "text" in keys:
            return [(None, _text(example, "text", where))]
    elif isinstance(example, Sequence) and not isinstance(example, bytes) and len(example) == 2:
        return [(example[0], example[1])]  # what is no text is refused by the tokenizer's door
    raise TuneError(f"{where}: need {_FORMS}, got {show(example)}")


def _text(example: Mapping[str, Any], key: str, where: str) -> str:
    value = example[key]
    if not isinstance(value, str):
        raise TuneError(f'{where}: need a text under "{key}", got {show(value)}')
    return value


def _conversation(messages: Any, form: Template, where: str) -> Sequence[tuple[str, str]]:
    """Turns of the user and the assistant by turns, each written in the template."""
    roles = ("user", "assistant")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages or len(messages) % 2:
        raise TuneError(f"{where}: messages: need user and assistant one after the other, got {show(messages)}")
    said = []
    for number, message in enumerate(messages):
        role = roles[number % 2]
        given = message if isinstance(message, Mapping) else {}
        if given.get("role") != role or not isinstance(given.get("content"), str):
            raise TuneError(
                f'{where}: messages[{number}]: need {{"role": "{role}", "content": a text}}, got {show(message)}'
            )
        said.append(given["content"])
    return [form.example(*pair) for pair in zip(said[::2], said[1::2], strict=True)]


def _tokens(model: Model, prompt: str, where: str) -> list[int]:
    if ids := model.encode(prompt):
        return ids
    raise TuneError(f"{where}: the prompt needs at least one token")


def _encode(model: Model, turns: Sequence[tuple[str | None, str]], where: str) -> Encoded:
    ids: list[int] = []
    wanted: list[bool] = []
    for prompt, answer in turns:
        asked, told = ([] if text is None else model.encode(text) for text in (prompt, answer))
        if not told and prompt is None:
            raise TuneError(f"{where}: the text needs at least one token")
        if not told or (not asked and prompt is not None):
            raise TuneError(f"{where}: prompt and answer need at least one token each, got {show((prompt, answer))}")
        ids += [*asked, *told]
        wanted += [False] * len(asked) + [True] * len(told)
    return Encoded([*ids, END_OF_TEXT], [False, *wanted[1:], True])
