"""Sweeps: what a model answers on the way from one initial state to another."""
