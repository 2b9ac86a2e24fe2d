"""Tuning: a state is trained on examples while the model stays as it is."""

from rwkvlab.model.tuning.job import TuningJob, start_tuning
from rwkvlab.model.tuning.many import tune_many
from rwkvlab.model.tuning.memory import tuning_memory
from rwkvlab.model.tuning.step import TuneStep
from rwkvlab.model.tuning.tune import tune
