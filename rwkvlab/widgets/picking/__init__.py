"""Picking: which state, of all that there are."""
