"""Plots draw: states and tables as matplotlib Axes."""

from rwkvlab.plots.curves import plot_curve, plot_sweep
from rwkvlab.plots.heads import plot_head, plot_heads
from rwkvlab.plots.influence import plot_influence
from rwkvlab.plots.lines import plot_over_time, plot_surprise
from rwkvlab.plots.outcomes import plot_accuracy, plot_matrix, plot_outcomes
from rwkvlab.plots.pairs import plot_diff, plot_pair
from rwkvlab.plots.spectra import plot_spectrum
from rwkvlab.plots.statemap import plot_map
from rwkvlab.plots.strip import plot_strip
from rwkvlab.plots.tuning import plot_tuning
from rwkvlab.plots.watch import plot_trajectory, plot_writes
from rwkvlab.plots.where import plot_layers, plot_set
