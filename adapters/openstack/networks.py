"""Which network machines are put on, and where their public addresses come from."""

from __future__ import annotations

import threading
import time

from adapters.openstack.reading import read_networks
from adapters.openstack.session import Session
from broker.errors import SiteRefused
from broker.remote import Deadline, RemoteNetwork

_KEEP_SECONDS = 300.0


class NetworkChoice:
    """The site's setting by name or id, else the only network there is. Read at most every few minutes."""

    def __init__(self, session: Session) -> None:
        """Read nothing yet."""
        self._session = session
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._networks: list[RemoteNetwork] = []

    def inner(self, deadline: Deadline) -> str:
        """The id of the network for machines. Raises `SiteRefused`: no network, or which one is unclear."""
        return choose(self._known(deadline), self._session.site.settings.get("network"), is_external=False).remote_id

    def outer(self, deadline: Deadline) -> str:
        """The id of the network for public addresses. Raises `SiteRefused`: no network, or which one is unclear."""
        wanted = self._session.site.settings.get("external_network")
        return choose(self._known(deadline), wanted, is_external=True).remote_id

    def forget(self) -> None:
        """Read again next time: a request was refused, perhaps because a network is not what it was."""
        self._read_at = 0.0

    def _known(self, deadline: Deadline) -> list[RemoteNetwork]:
        with self._lock:
            if not self._read_at or time.monotonic() - self._read_at > _KEEP_SECONDS:
                self._networks = read_networks(self._session, deadline)
                self._read_at = time.monotonic()
            return self._networks


def choose(networks: list[RemoteNetwork], wanted: str | None, *, is_external: bool) -> RemoteNetwork:
    """The network that a setting names, else the only one of the kind.

    A named one may be of either kind: some sites put machines straight on an external network.

    Raises:
        SiteRefused: nothing was made, because there is none or more than one.
    """
    setting, purpose = ("external_network", "public addresses") if is_external else ("network", "machines")
    fitting = [network for network in networks if network.is_external is is_external]
    if wanted:
        named = [network for network in networks if wanted in (network.remote_id, network.name)]
        if len(named) == 1:
            return named[0]
        reason = f"{len(named)} networks are called {wanted!r}" if named else f"there is no network {wanted!r}"
        fitting = named or fitting
    elif len(fitting) == 1:
        return fitting[0]
    else:
        reason = f"there are {len(fitting)} networks for {purpose}" if fitting else f"there is no network for {purpose}"
    names = ", ".join(f"{network.name} ({network.remote_id})" for network in fitting)
    raise SiteRefused(
        f"choosing the network for {purpose}: {reason}",
        hint=f"Set the site's setting {setting} to one of: {names}."
        if names
        else f"Ask the site for a network for {purpose}, or make one in this project.",
    )
