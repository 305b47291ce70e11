"""Figures, one JSON line each: `python -m tests.bench [NAME ...]`."""
