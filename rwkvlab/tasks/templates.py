"""Chat templates: how a question is written for the model, where an answer ends, what stands between turns."""

import re
from dataclasses import dataclass

from rwkvlab.errors import ArgError, PromptError, show

SLOT = "{question}"


@dataclass(frozen=True)
class Template:
    r"""How a question becomes a prompt, and an answer is taken from what the model writes.

    prompt holds {question} once; lead is what the model writes before the answer proper (cut from the answer together
    with white space around it; in front of the answer in training examples); stop are the strings that end an answer;
    separator stands between one turn and the next. clean: "\r\n" becomes "\n", white space around the question is cut,
    and blank lines in it become single line ends, since a blank line ends a turn. Without clean, the text is untouched
    and nothing is cut from the answer. Raises ArgError where prompt has not exactly one {question}.
    """

    name: str
    prompt: str
    lead: str = ""
    stop: tuple[str, ...] = ()
    separator: str = ""
    clean: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArgError(f"template name: need a non-empty string, got {show(self.name)}")
        if not isinstance(self.prompt, str) or self.prompt.count(SLOT) != 1:
            raise ArgError(f"template {show(self.name)}: prompt: need a text with {SLOT} once, got {show(self.prompt)}")
        object.__setattr__(self, "stop", self.stop if isinstance(self.stop, str) else tuple(self.stop))
        if isinstance(self.stop, str) or not all(isinstance(stop, str) and stop for stop in self.stop):
            raise ArgError(
                f"template {show(self.name)}: stop: need a tuple of non-empty strings, got {show(self.stop)}"
            )

    def format(self, question: str, name: str = "question") -> str:
        """Return the prompt for a question; PromptError, by `name`, where nothing is left of it after cleaning."""
        if not isinstance(question, str):
            raise PromptError(f"{name}: need a str, got {type(question).__name__}")
        if lone := re.search("[\ud800-\udfff]", question):
            raise PromptError(
                f"{name}: lone surrogate U+{ord(lone[0]):04X} at character {lone.start()}; remove it, or decode the "
                "text with errors='replace'"
            )
        text = self.tidy(question)
        if not text:
            raise PromptError(f"{name}: empty; ask something")
        return self.prompt.replace(SLOT, text)

    def tidy(self, text: str) -> str:
        """Return `text` as it may stand inside a turn."""
        if not self.clean:
            return text
        lines = text.replace("\r\n", "\n").replace("\r", "\n").strip()
        return re.sub(r"\n[ \t\u3000]*(?:\n[ \t\u3000]*)+", "\n", lines)

    def example(self, question: str, answer: str) -> tuple[str, str]:
        """Return (prompt, continuation) of a training example, the separator at its end."""
        return self.format(question), self.lead + self.tidy(answer) + self.separator


_CHAT = "User: {question}\n\nAssistant:"

# World and G1 prompts are those of the model cards of RWKV-7 World and RWKV7-G1. After "<think" a G1 model writes its
# thoughts, "</think>" and the answer; after an empty thought (their "fake think") it answers at once. Its thoughts may
# hold blank lines, so that only the next "User:" ends a turn. G1 without any thought is "world".
TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template("world", _CHAT, lead=" ", stop=("\n\n",), separator="\n\n"),
        Template("g1", _CHAT + " <think", lead=">", stop=("\n\nUser:",), separator="\n\n"),
        Template("g1-fast", _CHAT + " <think>\n</think", lead=">\n", stop=("\n\nUser:",), separator="\n\n"),
        Template("raw", SLOT, clean=False),
    )
}


def get_template(template: str | Template) -> Template:
    """Return a template by name, or the user's own as it is; ArgError lists the names."""
    if isinstance(template, Template):
        return template
    if isinstance(template, str) and template in TEMPLATES:
        return TEMPLATES[template]
    raise ArgError(f"template: need a Template or one of {', '.join(TEMPLATES)}, got {show(template)}")
