"""Accounting's rows. Importing this package registers them all on `Base.metadata`."""

from accounting.models import charges, grants, ledger

__all__ = ["charges", "grants", "ledger"]
