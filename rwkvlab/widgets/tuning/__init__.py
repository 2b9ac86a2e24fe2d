"""Tuning: a state is trained before one's eyes."""
