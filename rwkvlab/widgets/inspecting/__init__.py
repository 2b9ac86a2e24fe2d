"""Inspecting: the heads of a state, or of two, and what one head holds."""
