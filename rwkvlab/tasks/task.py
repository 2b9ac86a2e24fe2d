"""Task: questions with the answers that are wanted, and the template they are asked in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rwkvlab.errors import ArgError, show
from rwkvlab.tasks.templates import Template, get_template


@dataclass(frozen=True)
class Task:
    """Questions and answers of one kind: prompts[i] wants answers[i]; both are kept as tuples of non-empty strings.

    template is a name or a Template. Raises ArgError for empty or unequal lists.
    """

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    template: str | Template = "raw"

    def __post_init__(self) -> None:
        for field in ("prompts", "answers"):
            texts = getattr(self, field)
            texts = texts if isinstance(texts, str) or not isinstance(texts, Iterable) else tuple(texts)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) and text for text in texts):
                raise ArgError(f"task {show(self.name)}: {field}: need a list of non-empty strings, got {show(texts)}")
            object.__setattr__(self, field, texts)
        if not self.prompts or len(self.prompts) != len(self.answers):
            sizes = f"{len(self.prompts)} prompts and {len(self.answers)} answers"
            raise ArgError(f"task {show(self.name)}: need as many answers as prompts, at least one; got {sizes}")
        get_template(self.template)

    def __len__(self) -> int:
        return len(self.prompts)

    def formatted(self) -> list[str]:
        """Return the prompts as the model reads them."""
        template = get_template(self.template)
        return [template.format(prompt) for prompt in self.prompts]

    def examples(self) -> Iterator[tuple[str, str]]:
        """Yield (prompt, continuation) pairs to tune on."""
        template = get_template(self.template)
        for prompt, answer in zip(self.prompts, self.answers, strict=True):
            yield template.example(prompt, answer)

    def grade(self, texts: Sequence[str]) -> list[bool]:
        """Tell for each generated text whether it is the answer, white space around both aside."""
        if len(texts) != len(self.answers):
            raise ArgError(f"task {show(self.name)}: need {len(self.answers)} texts to grade, got {len(texts)}")
        return [text.strip() == answer.strip() for text, answer in zip(texts, self.answers, strict=True)]
