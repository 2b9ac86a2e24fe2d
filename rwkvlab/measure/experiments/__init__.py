"""Experiments: tasks answered from several initial states, here or on many machines."""
