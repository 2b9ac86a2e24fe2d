"""rwkvlab: mount, see, compare, blend and tune the initial hidden state of an RWKV model."""

from rwkvlab.bundled import bundled
from rwkvlab.errors import RwkvLabError
from rwkvlab.measure import Comparison, Experiment, compare, head_distance, sweep
from rwkvlab.model.chat import Conversation
from rwkvlab.model.engine import Model, load_model
from rwkvlab.model.generate import Generation
from rwkvlab.model.tune import tune
from rwkvlab.states import ModelCard, NameCard, Shelf, State, StateCard, lerp, load_state, mix, parse_name, read_ai00
from rwkvlab.states import save_state, scale, slerp, splice, truncate, write_ai00
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.tasks import Task, Template

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load the plots and the widgets, which need matplotlib and ipywidgets, when they are first asked for."""
    from importlib import import_module

    if name in ("plots", "widgets"):
        return import_module(f"rwkvlab.{name}")
    if name.startswith("plot_"):
        return getattr(import_module("rwkvlab.plots"), name)
    raise AttributeError(f"rwkvlab has no {name!r}")
