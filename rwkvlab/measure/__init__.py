"""Measure counts: distances between states, experiments, comparisons and sweeps, as tables."""

from rwkvlab.measure.compare import Comparison, compare
from rwkvlab.measure.controls import CONTROLS, accuracies, controlled, lifts
from rwkvlab.measure.curve import sweep
from rwkvlab.measure.distance import head_distance
from rwkvlab.measure.experiment import Experiment
