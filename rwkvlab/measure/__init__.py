"""Measure counts: what is in a state, how far two lie apart, where an effect lives, how long it lasts; as tables."""

from rwkvlab.measure.comparing.compare import Comparison, compare
from rwkvlab.measure.diff import diff
from rwkvlab.measure.distance import head_distance
from rwkvlab.measure.experiments.controls import CONTROLS, accuracies, controlled, lifts
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.measure.experiments.summary import summarise
from rwkvlab.measure.influence import influence
from rwkvlab.measure.interval import interval
from rwkvlab.measure.patching.ablation import ablation_map
from rwkvlab.measure.patching.patch import patch_map
from rwkvlab.measure.patching.sets import smallest_set
from rwkvlab.measure.readout import readout_distance
from rwkvlab.measure.spectrum import norms, singular_values, spectrum
from rwkvlab.measure.statemap import state_map
from rwkvlab.measure.sweeps.curve import sweep
from rwkvlab.measure.watch import over_time, trajectory
from rwkvlab.measure.writes import writes
