"""Plots draw: states and tables as matplotlib Axes."""

from rwkvlab.plots.curves import plot_curve
from rwkvlab.plots.heads import plot_head, plot_heads
from rwkvlab.plots.outcomes import plot_accuracy, plot_outcomes
