"""Widgets choose: small controls for notebooks, each a noun with one trait."""

from rwkvlab.widgets.picker import StatePicker
