"""Playground: one question to several initial states at the same time; its trait `result` is the last Comparison."""

from __future__ import annotations

from functools import partial
from typing import Any

from rwkvlab.errors import Cancelled, RwkvLabError
from rwkvlab.measure.comparing.comparison import Comparison
from rwkvlab.model.engine import Model
from rwkvlab.tasks.templates import Template
from rwkvlab.widgets.base.buttons import bar, button
from rwkvlab.widgets.base.captions import Caption
from rwkvlab.widgets.base.code import CodeButton
from rwkvlab.widgets.base.whole import Whole, all_or_nothing
from rwkvlab.widgets.base.work import Report, Work
from rwkvlab.widgets.playing.answers import AnswersView, grid
from rwkvlab.widgets.playing.asking import Settings, Turn, ask_columns, switches
from rwkvlab.widgets.playing.calls import code_of
from rwkvlab.widgets.playing.columns import Choice, Starts
from rwkvlab.widgets.playing.controls import Controls
from rwkvlab.widgets.playing.downloads import file_of
from rwkvlab.widgets.playing.earlier import Earlier
from rwkvlab.widgets.playing.inputs import INPUTS, SAMPLING, Inputs
from rwkvlab.widgets.playing.question import QuestionBox


class Playground(Whole, Inputs):
    """Ask a question from several initial states at once; `result` is the last Comparison, None before there is one.

    Columns stream side by side, with the same seed; then what differs from the first column, the baseline, is marked,
    and each token is shaded by KL, as in `lab.compare`, which gives the same texts. question, template, columns (names
    of states), seed, sampling (a dict), kl and chat are traits too, settable and observable. ask() asks without
    waiting, wait() waits, stop() stops and keeps what was written; `error` is what went wrong, shown in the widget.
    """

    @all_or_nothing
    def __init__(
        self,
        model: Model,
        states: Any = None,
        *,
        question: str = "",
        columns: Any = None,
        template: str | Template = "world",
        seed: int = 0,
        sampling: dict[str, Any] | None = None,
        kl: bool = True,
        chat: bool = False,
        **options: Any,
    ) -> None:
        """Show a playground for a Shelf, a folder, a mapping of names to states (None: zeros), a list, or one State.

        columns: names of at most 16 of them; None takes the zero state and the first two. options are those of
        ipywidgets.VBox. Raises ArgError, PathError.
        """
        self.model, self.starts = model, Starts(states, model)
        self._turns: tuple[Turn, ...] = ()
        self._asked: object = None  # what the last call of `ask` left: an older job may not add its answers
        self._box = QuestionBox(self.ask)
        self._choice = Choice(self.starts, lambda names: self._try("columns", names))
        self._controls = Controls(self._on_control)
        self._work, self._view, self._earlier = Work(), AnswersView(), Earlier(self._use)
        self._note, self._code = Caption(), CodeButton()
        self._new = button("New chat", "comment", "forget the turns; the next question starts anew", self.new_chat)
        self._saves = [
            button(f"Save {kind.upper()}", "download", f"download the last answers as {what}", partial(self.save, kind))
            for kind, what in (("html", "one page"), ("csv", "a table"))
        ]
        rows = [self._box, self._choice, self._controls, bar(self._work), self._note, self._view]
        super().__init__([*rows, bar(self._new, *self._saves), self._code, self._earlier], **options)
        self.add_class("rwkvlab-playground")
        self._box.observe(lambda change: self._try("question", change["new"]), "value")
        self.observe(self._on_trait, INPUTS)
        self.columns = self.starts.first if columns is None else columns
        self.question, self.template, self.seed = question, template, seed
        self.sampling, self.kl, self.chat = sampling or {}, kl, chat
        for name in INPUTS:
            self._on_trait({"name": name})
        self._note.say(self.starts.left_out)

    @property
    def code(self) -> str:
        """The Python call that makes the same view."""
        return code_of(self._settings(), self._turns, self.starts)

    @property
    def history(self) -> tuple[Comparison, ...]:
        """The answers to all questions that are still shown, the oldest first; each knows its settings."""
        return tuple(turn.result for turns in (*self._earlier.chats, self._turns) for turn in turns)

    def ask(self, question: str | None = None) -> Playground:
        """Ask `question` (None: the one that stands there) in all columns; returns at once.

        A question that is still being answered makes way for this one. What cannot be asked is shown in the widget.
        """
        if question is not None:
            self.question = question
        self._asked = token = object()
        self._work.start(partial(self._job, self._settings(), token), "reading the question")
        return self

    def stop(self) -> None:
        """Stop writing or reading; what was written stays."""
        self._work.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is written and read, at most `timeout` seconds; returns whether it is."""
        return self._work.wait(timeout)

    def new_chat(self) -> None:
        """Put the turns that are shown to the earlier ones; the next question starts anew."""
        self._asked = None
        self._work.stop()
        self._earlier.add(self._turns)
        self._turns = ()
        self._redraw()

    def save(self, kind: str) -> None:
        """Hand the last result to the browser as a download, "html" or "csv"."""
        result = self.result
        if self.running or result is None:
            why = "wait until the answers are ready" if self.running else "nothing to save yet; ask something"
            return self._note.say(why, trouble=True)
        self._work.start(partial(self._save, kind, result), "making the file")

    def _settings(self) -> Settings:
        sampling = dict(self.sampling)
        return Settings(self.question, self.columns, self.template, self.seed, sampling, self.kl, self.chat)

    def _job(self, settings: Settings, token: object, report: Report) -> str:
        """Write, show, read for KL; in the thread of `Work`."""
        had = self._turns if settings.chat else ()
        draw = partial(self._view.write, had, settings)
        try:
            arms = self.starts.read(settings.columns)
            draw(())
            turn = ask_columns(self.model, arms, settings, had[-1] if had else None, report, draw)
        except BaseException:
            self._redraw()  # all is as it was
            raise
        if self._asked is not token:
            self._redraw()
            return "another question came"
        if not settings.chat:
            self._earlier.add(self._turns)
        self._turns = (*had, turn)
        self._redraw()
        said = f"{'stopped' if turn.stopped else 'answered'}: {len(arms)} column{'' if len(arms) == 1 else 's'}"
        said += f", seed {settings.seed}" + (f", {len(self._turns)} questions in this chat" if had else "")
        try:
            if settings.kl and len(arms) > 1 and not turn.stopped:
                self._read(turn.result, report)
        except Cancelled:
            said += "; stopped reading again for KL, the answers are complete"
        finally:
            self.result = turn.result
        return said

    def _read(self, result: Comparison, report: Report) -> None:
        result.read_tokens(lambda done, total: report(done, total, "reading again for KL"))
        self._redraw()

    def _save(self, kind: str, result: Comparison, report: Report) -> str:
        if kind == "html":
            self._read(result, report)
        name, mime, data = file_of(result, kind)
        self._box.offer(name, mime, data)
        return f"saved: {name} went to the browser's downloads"

    def _redraw(self) -> None:
        self._view.show(self._turns)
        self._tell()

    def _tell(self) -> None:
        self._note.say(switches(self._turns, self.columns) if self.chat else "")
        self._code.code = self.code

    def _try(self, name: str, value: Any) -> None:
        """Set a trait as a person asked for, or show why not and what it still is."""
        try:
            setattr(self, name, value)
        except RwkvLabError as error:
            self._on_trait({"name": name})
            self._note.say(error, trouble=True)

    def _on_control(self, name: str, value: Any) -> None:
        part = name in SAMPLING
        self._try("sampling" if part else name, {**self.sampling, name: value} if part else value)

    def _on_trait(self, change: Any) -> None:
        """Bring the controls in line with a trait."""
        name = change["name"]
        if name == "question":
            self._box.value = self.question
        elif name == "columns":
            self._choice.show(self.columns)
        elif name == "sampling":
            for one in ("max_tokens", "temperature", "top_p"):
                self._controls.show(one, self.sampling[one])
        else:
            self._controls.show(name, getattr(self, name))
        self._tell()

    def _use(self, settings: Settings) -> None:
        """Set everything as it was when an earlier question was asked."""
        for name in sorted(INPUTS, key="columns".__eq__):  # last, since a state may be gone, and it must be seen
            self._try(name, getattr(settings, name))

    def _as_html(self) -> str:
        return f'<div class="rwkvlab-answers">{grid(self._turns)}</div>' if self._turns else ""
