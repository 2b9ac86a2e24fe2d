"""Widgets choose: controls for notebooks, each a noun with one trait."""

from rwkvlab.widgets.inspecting.grid import StateGrid
from rwkvlab.widgets.inspecting.inspector import StateInspector
from rwkvlab.widgets.mixing.mixer import StateMixer
from rwkvlab.widgets.picking.picker import StatePicker
from rwkvlab.widgets.playing.playground import Playground
from rwkvlab.widgets.tuning.panel import TunePanel
