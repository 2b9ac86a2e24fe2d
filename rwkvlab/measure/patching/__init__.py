"""Patching: where the difference between two states lies."""
