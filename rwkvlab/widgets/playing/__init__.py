"""Playing: one question from several initial states at once."""
