"""The crash run: orders, and workers that are killed and frozen at every step, counted from the clouds' own logs."""
