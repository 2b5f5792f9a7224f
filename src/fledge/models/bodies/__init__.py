"""How each architecture is read into the engine's values: one file each, one line in a table."""
