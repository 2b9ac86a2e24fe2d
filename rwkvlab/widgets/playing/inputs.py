"""What a playground is set to: its traits, each checked before it changes."""

from __future__ import annotations

from typing import Any

import ipywidgets
import traitlets

from rwkvlab.errors import ArgError, show
from rwkvlab.measure.comparing.comparison import Comparison
from rwkvlab.model.engine import Model
from rwkvlab.model.sampling import check_sampling
from rwkvlab.shapes import check_range
from rwkvlab.tasks.templates import get_template
from rwkvlab.widgets.base.work import Work
from rwkvlab.widgets.playing.columns import Starts

# the defaults of `Model.chat` and `lab.compare`
SAMPLING: dict[str, Any] = {"max_tokens": 200, "temperature": 1.0, "top_p": 0.2, "top_k": 0}
SAMPLING |= {"presence": 0.3, "frequency": 0.3}
INPUTS = ["question", "template", "columns", "seed", "sampling", "kl", "chat"]
SEEDS = 2**53 - 1  # what a browser can count to
AUTO = "auto"


class Inputs(ipywidgets.VBox):
    """The traits of `Playground`; what cannot be is refused with an ArgError, and all stays as it was."""

    model: Model
    starts: Starts
    _work: Work

    result = traitlets.Instance(Comparison, allow_none=True, help="The last answers, side by side.")
    # plain TraitType, since the others let None pass unchecked
    question: Any = traitlets.TraitType("", help="What is asked next, a text.")
    template: Any = traitlets.TraitType("world", help='The name of a template, "auto", or a Template.')
    columns: Any = traitlets.TraitType(
        (), help="Names of the initial states that stand in columns; the baseline is first."
    )
    seed: Any = traitlets.TraitType(0, help="Of the drawing, the same in every column.")
    sampling: Any = traitlets.Any(
        help="max_tokens, temperature, top_p … of `Model.chat`; what is left out is as there."
    )
    kl = traitlets.Bool(True, help="Whether the answers are read again, to shade each token by KL.")
    chat = traitlets.Bool(False, help="Whether the next question goes on with the turns that are shown.")

    @property
    def error(self) -> BaseException | None:
        """What ended the last job, None where it went well or was stopped."""
        return self._work.error

    @property
    def running(self) -> bool:
        """Whether answers are being written or read."""
        return self._work.running

    @traitlets.default("sampling")
    def _default_sampling(self) -> dict[str, Any]:
        return dict(SAMPLING)

    @traitlets.validate("question")
    def _check_question(self, proposal: Any) -> str:
        text = proposal["value"]
        if not isinstance(text, str):
            raise ArgError(f"question: need a text, got {show(type(text).__name__)}")
        # a browser cannot be sent half a character; the model would refuse it too
        return text.encode("utf-8", "replace").decode("utf-8")

    @traitlets.validate("template")
    def _check_template(self, proposal: Any) -> Any:
        value = proposal["value"]
        return AUTO if isinstance(value, str) and value == AUTO else _same(value, get_template(value))

    @traitlets.validate("columns")
    def _check_columns(self, proposal: Any) -> tuple[str, ...]:
        return self.starts.check(proposal["value"])

    @traitlets.validate("seed")
    def _check_seed(self, proposal: Any) -> int:
        return int(check_range("seed", proposal["value"], 0, SEEDS, whole=True))

    @traitlets.validate("sampling")
    def _check_sampling(self, proposal: Any) -> dict[str, Any]:
        value = proposal["value"]
        if not isinstance(value, dict):
            raise ArgError(f"sampling: need a dict such as {SAMPLING}, got {show(type(value).__name__)}")
        if odd := [name for name in value if name not in (*SAMPLING, "ban", "stop")]:
            raise ArgError(f"sampling: {show(odd[0])}: need one of {', '.join(SAMPLING)}, ban, stop")
        whole = SAMPLING | {name: one for name, one in value.items() if name in SAMPLING or one}
        check_sampling(self.model, seed=0, **whole)
        return whole

    def _as_html(self) -> str:
        """Return what a page without a kernel shows, or ""."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Give pages without a kernel the answers as text: it can be searched, and survives in any language."""
        found, kept = super()._repr_mimebundle_(**options), self._as_html()
        if found is None or not kept:
            return found
        data, metadata = found if isinstance(found, tuple) else (found, {})
        data = {**data, "text/html": kept}
        return (data, metadata) if metadata else data


def _same(name: Any, template: Any) -> Any:
    """Return a name where a name was given, else the template."""
    return name if isinstance(name, str) else template
