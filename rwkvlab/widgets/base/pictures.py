"""Pictures in widgets: a matplotlib figure with words beside it, and what a saved notebook keeps of a widget."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any

import ipywidgets

from rwkvlab.states.render import NO_FORMULAS, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
INK = "#7a7a7a"  # at least 4.2:1 against white, and against black


class Picture(ipywidgets.HTML):
    """An image of a Figure, with an alternative text; `alt` is what it says at the moment."""

    alt: str = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_class("rwkvlab-picture")

    def show(self, figure: Figure, alt: str) -> None:
        """Draw a figure (unknown to pyplot, so that any thread may), described by `alt`."""
        data = b64encode(png_of(figure)).decode("ascii")
        self.alt = alt
        width = round(figure.get_figwidth() * DPI)
        self.value = (
            f'<img class="{NO_FORMULAS}" src="data:image/png;base64,{data}" alt="{escape(alt, 400)}" '
            f'style="width:{width}px;max-width:100%">'
        )

    def clear(self) -> None:
        """Show nothing."""
        self.alt, self.value = "", ""


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG bytes, twice as fine as it is shown."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=2 * DPI)
    return picture.getvalue()


def for_both_themes(figure: Figure) -> Figure:
    """Take a figure's background away and draw its frame and words in a grey that is read on white and on black."""
    figure.patch.set_alpha(0)
    for ax in figure.axes:
        ax.patch.set_alpha(0)
        ax.tick_params(which="both", colors=INK)
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
            text.set_color(INK)
        for spine in ax.spines.values():
            spine.set_color(INK)
        if (legend := ax.get_legend()) is not None:
            legend.set_frame_on(False)
            for text in legend.get_texts():
                text.set_color(INK)
    return figure


class Snapshot:
    """A mixin, named before the widget's class: saved notebooks show a picture where no kernel runs.

    `snapshot()` returns PNG bytes, or None where there is nothing to draw; what it raises is left out quietly, since
    the widget itself is there.
    """

    def snapshot(self) -> bytes | None:
        """Return what a page without a kernel shows."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)  # type: ignore[misc]
        if found is None:
            return None
        data, metadata = found if isinstance(found, tuple) else (found, {})
        try:
            picture = self.snapshot()
        except Exception:
            picture = None
        if picture:
            data = {**data, "image/png": b64encode(picture).decode("ascii")}
        return (data, metadata) if metadata else data
