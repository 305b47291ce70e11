"""Clouds that speak the real wire APIs on loopback: for the demo, for training and for tests."""
