"""Placement: which offers a workload may use, what each would cost, and why. Pure: no database here."""
