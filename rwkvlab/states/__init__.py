"""States hold: the value, its card, names, files, shelves and blends."""
