"""Mixing: states under sliders, and what the model answers from their mixture."""
