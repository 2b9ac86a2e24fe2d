"""Widgets choose: controls for notebooks, each a noun with one trait."""

from rwkvlab.widgets.mixer import StateMixer
from rwkvlab.widgets.picker import StatePicker
from rwkvlab.widgets.playground import Playground
from rwkvlab.widgets.tune_panel import TunePanel
