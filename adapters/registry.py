"""From a site's kind to its adapter. Kinds of other packages come in by the entry points `leeway.adapters`."""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from uuid import UUID

from adapters.cloud import Bulkhead
from adapters.openstack.adapter import OpenStack
from adapters.openstack.fenced import FencedOpenStack
from adapters.telling import telling
from broker.errors import InvalidInput, SetupError
from broker.ports import CloudAdapter
from broker.remote import Secret, SiteAddress

Factory = Callable[[SiteAddress, Secret, Bulkhead], CloudAdapter]

GROUP = "leeway.adapters"
# A sandbox is an OpenStack; its own kind lets people tell it from a real cloud, and gives it the setting `fence`.
BUILT_IN: Mapping[str, Factory] = {"openstack": OpenStack, "sandbox": FencedOpenStack}
_MOST_OPEN = 200


def factories() -> dict[str, Factory]:
    """Every kind that can be opened; what is installed cannot replace what is built in.

    Raises:
        SetupError: an installed adapter cannot be loaded.
    """
    found: dict[str, Factory] = {}
    for entry in entry_points(group=GROUP):
        try:
            found[entry.name] = entry.load()
        except (ImportError, AttributeError) as error:
            raise SetupError(
                f"the adapter {entry.name!r} of {entry.value} cannot be loaded: {error}",
                hint="Repair or uninstall the package that brings it.",
            ) from error
    return found | dict(BUILT_IN)


class Registry:
    """Implements `broker.ports.Adapters`. Thread-safe.

    Adapters are kept by site and by a digest of the credential, so that no two credentials share a session; those not
    used for the longest time are dropped. The places of a site's bulkhead are shared by all its credentials.
    """

    def __init__(self, kinds: Mapping[str, Factory] | None = None, *, most_open: int = _MOST_OPEN) -> None:
        """`kinds` are those of `factories()` unless given."""
        self._kinds = dict(factories() if kinds is None else kinds)
        self._most_open = most_open
        self._open: OrderedDict[tuple[str, ...], CloudAdapter] = OrderedDict()
        self._bulkheads: dict[UUID, Bulkhead] = {}
        self._lock = threading.Lock()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind that `open` knows."""
        return tuple(sorted(self._kinds))

    def open(self, site: SiteAddress, secret: Secret) -> CloudAdapter:
        """The adapter of this site for this credential, the same one for the same arguments.

        Raises:
            InvalidInput: unknown kind, or the adapter finds credential, endpoint or a setting unusable.
        """
        factory = self._kinds.get(site.adapter)
        if factory is None:
            close = difflib.get_close_matches(site.adapter, self._kinds, n=1)
            guess = f"Did you mean {close[0]!r}? " if close else ""
            raise InvalidInput(
                "adapter",
                f"there is no adapter kind {site.adapter!r}",
                hint=f"{guess}Known are: {', '.join(self.kinds)}.",
            )
        key = _key(site, secret)
        dropped: list[CloudAdapter] = []
        with self._lock:
            adapter = self._open.get(key)
            if adapter is None:
                bulkhead = self._bulkheads.setdefault(site.site_id, Bulkhead(site.name))
                adapter = self._open[key] = telling(factory(site, secret, bulkhead), site.name)
                while len(self._open) > self._most_open:
                    dropped.append(self._open.popitem(last=False)[1])
            self._open.move_to_end(key)
        _close(dropped)
        return adapter

    def close(self) -> None:
        """Drop all adapters and close their idle connections."""
        with self._lock:
            dropped = list(self._open.values())
            self._open.clear()
        _close(dropped)


def _close(adapters: list[CloudAdapter]) -> None:
    for adapter in adapters:
        close = getattr(adapter, "close", None)  # not in the port: only who opened adapters drops them
        if close is not None:
            close()


def _key(site: SiteAddress, secret: Secret) -> tuple[str, ...]:
    def digest(fields: Mapping[str, str]) -> str:
        return hashlib.sha256(json.dumps(sorted(fields.items())).encode()).hexdigest()

    return (
        str(site.site_id),
        site.adapter,
        site.endpoint,
        site.region or "",
        str(site.installation),
        str(site.observe_only),
        digest(site.settings),
        digest(secret.reveal()),
    )
