"""Comparing: the same prompts from several initial states side by side."""
