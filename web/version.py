"""Which Leeway this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def leeway_version() -> str:
    """The installed version; a checkout that runs without being installed has none."""
    try:
        return version("leeway")
    except PackageNotFoundError:
        return "0+checkout"
