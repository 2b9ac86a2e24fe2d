"""Figures of several panels, unknown to pyplot, that a notebook shows whether or not pyplot was used before."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class Panels(Figure):
    """A matplotlib figure that is shown as the value of a cell.

    IPython draws figures only after pyplot chose a backend for the notebook; until then this one draws itself.
    """

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png", bbox_inches="tight")
        return picture.getvalue()
