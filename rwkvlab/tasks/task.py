"""Task: questions with the answers that are wanted, how they are graded, and the template they are asked in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rwkvlab.errors import ArgError, show
from rwkvlab.tasks.templates import Template, get_template

KINDS = ("exact", "choice", "last word", "text", "style")
NORMALISE = ("none", "token", "byte")


@dataclass(frozen=True)
class Example:
    """One question and the answer that is wanted ("" where a judge decides), and the choices where it is one of."""

    prompt: str
    answer: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """Questions of one kind: prompts[i] wants answers[i]; both are kept as tuples of non-empty strings.

    kind: how an answer is graded.
    "exact": what the model writes is the answer, white space around both aside.
    "choice": the answer is the most probable of choices[i], by the log-probability of the whole choice, or that over
    its tokens or its bytes (normalise "none", "token", "byte").
    "last word": what the model writes begins with the answer, and no letter or digit follows it; what comes behind
    is not looked at (the last words of LAMBADA: Paperno et al. 2016, arXiv:1606.06031).
    "text": nothing is written or graded; the answer is a text whose bits per byte are measured after the prompt.
    "style": `judge`, a function of the written text, says whether it is right; there are no answers.

    template is a name or a Template. Raises ArgError for empty or unequal lists, and for what does not go with a kind.
    """

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...] = ()
    template: str | Template = "raw"
    kind: str = "exact"
    choices: tuple[tuple[str, ...], ...] = ()
    normalise: str = "none"
    judge: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArgError(f"task: name: need a non-empty string, got {show(self.name)}")
        where = f"task {show(self.name)}"
        for field in ("prompts", "answers"):
            object.__setattr__(self, field, _texts(f"{where}: {field}", getattr(self, field)))
        if self.kind not in KINDS:
            raise ArgError(f"{where}: kind: need one of {', '.join(KINDS)}, got {show(self.kind)}")
        if self.normalise not in NORMALISE:
            raise ArgError(f"{where}: normalise: need one of {', '.join(NORMALISE)}, got {show(self.normalise)}")
        styled = self.kind == "style"
        if not self.prompts or len(self.answers) != (0 if styled else len(self.prompts)):
            sizes = f"{len(self.prompts)} prompts and {len(self.answers)} answers"
            need = "prompts and no answers" if styled else "as many answers as prompts, at least one"
            raise ArgError(f"{where}: need {need}; got {sizes}")
        if callable(self.judge) != styled or (self.judge is not None and not styled):
            raise ArgError(f"{where}: judge: need a function of a text for the kind 'style', None for every other")
        if self.kind == "last word" and not all(answer.strip() for answer in self.answers):
            raise ArgError(f"{where}: answers: one is white space alone; give each prompt a word")
        object.__setattr__(self, "choices", self._checked_choices(where))
        get_template(self.template)

    def _checked_choices(self, where: str) -> tuple[tuple[str, ...], ...]:
        given = self.choices
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ArgError(f"{where}: choices: need a list of lists of texts, got {show(given)}")
        rows = list(given)
        if len(rows) != (len(self.prompts) if self.kind == "choice" else 0):
            need = f"one list a prompt, {len(self.prompts)}," if self.kind == "choice" else "none but for 'choice'"
            raise ArgError(f"{where}: choices: need {need}; got {len(rows)}")
        kept = []
        for at, (row, answer) in enumerate(zip(rows, self.answers, strict=False)):
            texts = _texts(f"{where}: choices[{at}]", row)
            if len(set(texts)) < 2 or answer not in texts:
                raise ArgError(
                    f"{where}: choices[{at}]: need two different texts at least, the answer {show(answer, 40)} among "
                    f"them; got {show(', '.join(texts))}"
                )
            kept.append(texts)
        return tuple(kept)

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Example]:
        for at, prompt in enumerate(self.prompts):
            answer, choices = self.answers[at] if self.answers else "", self.choices[at] if self.choices else ()
            yield Example(prompt, answer, choices)

    @classmethod
    def of(cls, name: str, examples: Iterable[Example | Sequence[str]], **fields: Any) -> Task:
        """Make a task from examples, or from (prompt, answer) pairs; fields: kind, template, normalise."""
        rows = []
        if isinstance(examples, str) or not isinstance(examples, Iterable):
            raise ArgError(f"task {show(name)}: examples: need a list of Example, got {show(examples)}")
        for at, row in enumerate(examples):
            if not isinstance(row, Example):
                if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != 2:
                    raise ArgError(f"task {show(name)}: examples[{at}]: need an Example or a pair, got {show(row)}")
                row = Example(row[0], row[1])
            rows.append(row)
        styled = fields.get("kind") == "style"
        answers = tuple(row.answer for row in rows if row.answer or not styled)
        choices = tuple(row.choices for row in rows) if any(row.choices for row in rows) else ()
        return cls(name, tuple(row.prompt for row in rows), answers, choices=choices, **fields)

    def formatted(self) -> list[str]:
        """Return the prompts as the model reads them."""
        template = get_template(self.template)
        return [template.format(prompt) for prompt in self.prompts]

    def examples(self) -> Iterator[tuple[str, str]]:
        """Yield (prompt, continuation) pairs to tune on; ArgError for a task without answers."""
        if not self.answers:
            raise ArgError(f"task {show(self.name)}: has no answers to tune on; take a task of another kind")
        template = get_template(self.template)
        return (template.example(*pair) for pair in zip(self.prompts, self.answers, strict=True))

    def grade(self, texts: Sequence[str]) -> list[bool]:
        """Tell for each text (written, or the choice that was picked) whether it is right; see `Task`."""
        if len(texts) != len(self.prompts):
            raise ArgError(f"task {show(self.name)}: need {len(self.prompts)} texts to grade, got {len(texts)}")
        if self.judge is not None:
            return [self._judged(at, text) for at, text in enumerate(texts)]
        if self.kind == "text":
            raise ArgError(f"task {show(self.name)}: has no right answers, only bits per byte")
        pairs = zip((text.strip() for text in texts), (answer.strip() for answer in self.answers), strict=True)
        if self.kind == "last word":
            return [said.startswith(answer) and not said[len(answer) :][:1].isalnum() for said, answer in pairs]
        return [said == answer for said, answer in pairs]

    def _judged(self, at: int, text: str) -> bool:
        try:
            return bool(self.judge(text))  # type: ignore[misc]
        except Exception as error:
            said = show(f"{type(error).__name__}: {error}")
            where = f"task {show(self.name)}: judge: fails at example {at} ({show(self.prompts[at], 40)})"
            raise ArgError(f"{where} for the text {show(text, 40)}: {said}; correct it") from error


def text_task(name: str, texts: Iterable[str], *, context: str = "\n") -> Task:
    """Return the task of measuring bits per byte of each text, read whole after `context`.

    context: what stands before every text, a line end unless given, since the first token cannot be predicted from a
    state alone; it is not counted. Raises ArgError.
    """
    answers = _texts(f"task {show(name)}: texts", texts)
    return Task(name, (context,) * len(answers), answers, kind="text")


def _texts(where: str, given: object) -> tuple[str, ...]:
    texts = given if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not isinstance(texts, tuple) or not all(isinstance(text, str) and text for text in texts):
        raise ArgError(f"{where}: need a list of non-empty strings, got {show(texts)}")
    return texts
