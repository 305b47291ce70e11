"""Every failure of a site says which site, what was asked of it, why that failed, and what a person can do.

Adapters say what they were doing and what came of it (`making the server: the site says 409`). What is the same for all
of them is added here, where they are opened.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, cast

from broker.errors import SiteError
from broker.ports import CloudAdapter


def telling(adapter: CloudAdapter, site: str) -> CloudAdapter:
    """The same adapter; its failures name the site."""
    return cast("CloudAdapter", _Telling(adapter, site))


class _Telling:
    """An adapter whose failures are completed on their way out. All else is the adapter's own, also its class."""

    def __init__(self, adapter: CloudAdapter, site: str) -> None:
        self._adapter = adapter
        self._site = site

    @property  # type: ignore[misc] # nobody sets it; isinstance(adapter, Powers) is how its abilities are asked for
    def __class__(self) -> Any:
        return self._adapter.__class__

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._adapter, name)
        if not callable(found):
            return found

        @wraps(found)
        def told(*args: Any, **named: Any) -> Any:
            try:
                return found(*args, **named)
            except SiteError as error:
                error.complete(self._site, operation=name)
                raise

        return told
