"""Whole: a widget goes with all that it is made of, which ipywidgets alone keeps for ever, and all that this holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import ipywidgets

from rwkvlab.widgets.base.later import Later

P = ParamSpec("P")
W = TypeVar("W", bound="Whole")


class Whole:
    """A mixin, named before the widget's class: closed, it closes its parts too, and so stops their work."""

    def close(self) -> None:
        """Stop what runs, and take the widget and all its parts away."""
        for later in list(vars(self).values()):
            if isinstance(later, Later):
                later.stop()
        for part in _parts(self):
            part.close()
        super().close()  # type: ignore[misc]


def all_or_nothing(init: Callable[Concatenate[W, P], None]) -> Callable[Concatenate[W, P], None]:
    """Let the constructor of a Whole take the parts away again that it has made, where it raises."""

    @wraps(init)
    def made(self: W, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            init(self, *args, **kwargs)
        except BaseException:
            self.close()
            raise

    return made


def _parts(whole: Any) -> list[ipywidgets.Widget]:
    """Return all widgets that one is made of, shown or not; without its own layout, which may be somebody else's."""
    own = {**vars(whole), **whole._trait_values}
    left: list[Any] = [value for name, value in own.items() if name not in ("layout", "_trait_values")]
    seen: dict[int, Any] = {id(whole): whole}
    while left:
        one = left.pop()
        if not isinstance(one, list | tuple | dict | ipywidgets.Widget) or id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, list | tuple):
            left.extend(one)
        else:
            left.extend((one if isinstance(one, dict) else vars(one)).values())
    return [one for one in seen.values() if isinstance(one, ipywidgets.Widget) and one is not whole]
