"""Brings a real OpenStack up on loopback and takes it down; run by Debian's own Python, standard library only."""
