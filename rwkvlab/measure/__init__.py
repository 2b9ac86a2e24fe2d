"""Measure counts: what is in a state, how far two lie apart, where an effect lives, how long it lasts; as tables."""

from rwkvlab.measure.ablation import ablation_map
from rwkvlab.measure.compare import Comparison, compare
from rwkvlab.measure.controls import CONTROLS, accuracies, controlled, lifts
from rwkvlab.measure.curve import sweep
from rwkvlab.measure.diff import diff
from rwkvlab.measure.distance import head_distance
from rwkvlab.measure.experiment import Experiment
from rwkvlab.measure.experiment_summary import summarise
from rwkvlab.measure.influence import influence
from rwkvlab.measure.interval import interval
from rwkvlab.measure.patch import patch_map
from rwkvlab.measure.patch_sets import smallest_set
from rwkvlab.measure.readout import readout_distance
from rwkvlab.measure.spectrum import norms, singular_values, spectrum
from rwkvlab.measure.watch import over_time, trajectory
from rwkvlab.measure.writes import writes
