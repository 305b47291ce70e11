"""An OpenStack with another fence than its ports: the adapter of the sandbox, which can have each of the four.

The setting `fence` says what keeps a second request for a lease's server from making a second one:

part    the port, as at every OpenStack
name    the site refuses the name of a server that exists; a lease's server always has the same name
token   the site answers a repeated `Client-Token` with the first request's server
none    nothing

With the last three the plan has no port: the site makes one with the server, and takes it away with it.

What a repetition with a token sends. Token and body must be the same for every attempt of a lease, or the site refuses
it; but two of the tags belong to the attempt: its own id, and the end date, which may have been moved meanwhile. So on
these sites `leeway:attempt` is the token, and `leeway:until` says only that the end date is not kept there. Whoever
reads such a tag back finds no attempt of that id, and knows the server by its lease. A setting of the site that was
changed between two attempts still changes the body; the refusal (`SiteConflict`) then says what is true: the first
request was accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

from adapters.cloud import Bulkhead
from adapters.openstack import launching
from adapters.openstack.adapter import SETTINGS, OpenStack
from adapters.openstack.inventory import look
from adapters.openstack.launching import Launcher, id_of
from adapters.openstack.networks import NetworkChoice
from adapters.openstack.session import Document, Service, Session, get
from broker.errors import InvalidInput, SiteBusy, SiteRefused
from broker.remote import (
    Deadline,
    Fence,
    MachineSpec,
    MachineState,
    PartKind,
    PartSpec,
    RemoteMachine,
    Secret,
    SiteAddress,
    Tags,
)

# In the tag `until` where the end date is not kept at the site: so late that nobody deletes anything because of it.
NOT_KEPT = datetime(9999, 12, 31, tzinfo=UTC)


class FencedOpenStack(OpenStack):
    """One project of one OpenStack with the fence that the site's settings name."""

    known_settings = (*SETTINGS, "fence")

    def __init__(self, site: SiteAddress, secret: Secret, bulkhead: Bulkhead) -> None:
        """Ask nothing of the site yet.

        Raises:
            InvalidInput: as `OpenStack`, or `fence` is none of the four.
        """
        super().__init__(site, secret, bulkhead)
        self._fence = _fence(site.settings.get("fence", Fence.PART))
        if self._fence is not Fence.PART:
            self._launcher = PortlessLauncher(self._session, self._networks, self._fence)

    def plan(self, machine: MachineSpec) -> Sequence[PartSpec]:
        return launching.plan(machine, self._fence)


def _fence(word: str) -> Fence:
    try:
        return Fence(word)
    except ValueError as error:
        raise InvalidInput(
            "settings.fence", f"{word!r} is no fence", hint=f"Write one of: {', '.join(Fence)}."
        ) from error


class PortlessLauncher(Launcher):
    """Makes servers straight on the network, and addresses on the port that the site gave the server."""

    def __init__(self, session: Session, networks: NetworkChoice, fence: Fence) -> None:
        """Send nothing yet."""
        super().__init__(session, networks)
        self._fence = fence

    def make(
        self, kind: PartKind, machine: MachineSpec, *, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline
    ) -> str:
        if kind is PartKind.ADDRESS:
            made = {**made, PartKind.PORT: self._port_of(id_of(made, PartKind.SERVER), deadline)}
        return super().make(kind, machine, tags=tags, made=made, deadline=deadline)

    def _make_server(self, machine: MachineSpec, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline) -> str:
        headers = {}
        if self._fence is Fence.TOKEN:
            token = client_token(tags.lease)
            headers["Client-Token"] = str(token)
            tags = replace(tags, attempt=token, until=NOT_KEPT)
        network = self._networks.inner(deadline)
        server = self._server(machine, tags, made) | {"networks": [{"uuid": network}]}
        groups = self._groups.security(deadline)
        if groups:
            server["security_groups"] = [{"name": group} for group in groups]
        try:
            return self._send_server(server, machine, made, deadline, headers=headers)
        except SiteRefused:
            self._networks.forget()
            raise

    def _port_of(self, server_id: str, deadline: Deadline) -> str:
        """The port of a server.

        Raises:
            SiteBusy: it has none yet.
            SiteRefused: it failed, and will have none.
        """
        doing = f"searching the port of server {server_id}"
        ports = self._session.all(
            get(Service.NETWORK, "/v2.0/ports", doing, device_id=server_id), "ports", _identifier, deadline
        )
        if ports:
            return min(ports)
        server = look(self._session, PartKind.SERVER, server_id, deadline)
        if isinstance(server, RemoteMachine) and server.state is MachineState.ERROR:
            raise SiteRefused(f"{doing}: the machine failed before it had one ({server.fault or 'no reason is given'})")
        raise SiteBusy(f"{doing}: it has none yet")


def client_token(lease: UUID) -> UUID:
    """The token of every request for the server of a lease."""
    return uuid5(lease, "server")


def _identifier(document: Document) -> str:
    return str(document["id"])
