"""rwkvlab: mount, see, compare, blend and tune the initial hidden state of an RWKV model."""

from rwkvlab.bundled import bundled
from rwkvlab.errors import RwkvLabError
from rwkvlab.measure import Comparison, Experiment, ablation_map, compare, diff, head_distance, influence, interval
from rwkvlab.measure import norms, over_time, patch_map, readout_distance, singular_values, smallest_set, spectrum
from rwkvlab.measure import state_map, summarise, sweep, trajectory, writes
from rwkvlab.measure.verifying.verify import verify
from rwkvlab.model.chat import Conversation
from rwkvlab.model.engine import Model, load_model
from rwkvlab.model.example_files import read_examples
from rwkvlab.model.file_report import FileReport
from rwkvlab.model.generate import Generation
from rwkvlab.model.inspect import inspect_file, inspect_files
from rwkvlab.model.passage import Passage, passage
from rwkvlab.model.tuning import TuningJob, start_tuning, tune, tune_many, tuning_memory
from rwkvlab.states import ModelCard, NameCard, Shelf, State, StateCard, lerp, load_state, mix, parse_name, read_ai00
from rwkvlab.states import save_state, scale, slerp, splice, truncate, write_ai00
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.states.convert import convert_state
from rwkvlab.states.naming import name_for
from rwkvlab.states.soup import soup
from rwkvlab.tasks import Example, Task, Template, load_task, text_task

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load the plots and the widgets, which need matplotlib and ipywidgets, when they are first asked for."""
    from importlib import import_module

    if name in ("plots", "widgets"):
        return import_module(f"rwkvlab.{name}")
    if name.startswith("plot_"):
        return getattr(import_module("rwkvlab.plots"), name)
    raise AttributeError(f"rwkvlab has no {name!r}")


def __dir__() -> list[str]:  # what Tab offers behind `lab.`
    return [*globals(), "plots", "widgets", *(name for name in dir(__getattr__("plots")) if name.startswith("plot_"))]
