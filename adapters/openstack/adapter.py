"""The OpenStack adapter: `CloudAdapter` and the optional Protocols of `broker.ports`, for one site and credential."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

from adapters.cloud import Bulkhead, ReadSoFar, seconds_in
from adapters.openstack import actions, inventory, launching, reading, usage, volumes
from adapters.openstack.checking import check
from adapters.openstack.launching import Launcher
from adapters.openstack.login import Credential
from adapters.openstack.networks import NetworkChoice
from adapters.openstack.projects import Projects
from adapters.openstack.session import Session
from broker.errors import InvalidInput
from broker.ports import Changes
from broker.remote import (
    Capability,
    Deadline,
    Diagnosis,
    Listing,
    MachineSpec,
    PartKind,
    PartSpec,
    RemoteImage,
    RemoteNetwork,
    RemoteOffer,
    RemotePart,
    RemoteQuota,
    RemoteUsage,
    Secret,
    SiteAddress,
    Tags,
)
from broker.values import Period

SETTINGS = (
    "network",  # name or id of the network for machines, where there is more than one
    "external_network",  # name or id of the network that public addresses come from, where there is more than one
    "availability_zone",  # Nova's, for every machine
    "security_groups",  # names or ids, with commas between them, of the groups that every machine is in
    "server_group",  # name or id of Nova's group that every machine is in
    "volume_type",  # Cinder's, for every volume
    "projects",  # names or ids of the projects to observe, with commas between them; * for every one (the login's own)
    "ca_bundle",  # file of certificates, for a site with its own authority
    "call_timeout",  # seconds of silence after which one request is given up (30)
    "settle_time",  # seconds after which what was accepted shows in a search (30)
)


class OpenStack:
    """One project of one OpenStack. Thread-safe."""

    known_settings: ClassVar[tuple[str, ...]] = SETTINGS
    capabilities = (
        Capability.POWER
        | Capability.SHELVE
        | Capability.ENDINGS
        | Capability.SNAPSHOT
        | Capability.CHANGES
        | Capability.SUSPEND
        | Capability.RESIZE
        | Capability.REBUILD
        | Capability.VOLUMES
        | Capability.USAGE
    )

    def __init__(self, site: SiteAddress, secret: Secret, bulkhead: Bulkhead) -> None:
        """Ask nothing of the site yet.

        Raises:
            InvalidInput: a field of the credential is missing, or endpoint or a setting cannot be used.
        """
        unknown = sorted(set(site.settings) - set(self.known_settings))
        if unknown:
            hint = f"Known are: {', '.join(self.known_settings)}."
            raise InvalidInput(f"settings.{unknown[0]}", "is not known", hint=hint)
        self._session = Session(site, Credential.read(secret), bulkhead)
        self._projects = Projects(self._session)
        self._networks = NetworkChoice(self._session)
        self._launcher = Launcher(self._session, self._networks)
        self.settle_time = timedelta(seconds=seconds_in(site.settings, "settle_time", default=30, least=0))

    def scope(self, *, deadline: Deadline) -> str:
        return self._projects.scope(deadline)

    def check(self, *, deadline: Deadline) -> Sequence[Diagnosis]:
        steps = check(self._session, deadline)
        return [*steps, *(self._projects.check(deadline) if all(step.ok for step in steps) else ())]

    def offers(self, *, deadline: Deadline) -> Sequence[RemoteOffer]:
        return reading.read_offers(self._session, deadline)

    def images(self, *, deadline: Deadline) -> Sequence[RemoteImage]:
        return reading.read_images(self._session, deadline)

    def networks(self, *, deadline: Deadline) -> Sequence[RemoteNetwork]:
        return reading.read_networks(self._session, deadline)

    def quotas(self, *, deadline: Deadline) -> Sequence[RemoteQuota]:
        return self._projects.quotas(lambda session: reading.read_quotas(session, deadline), deadline)

    def listing(self, *, deadline: Deadline, progress: Callable[[int], None] | None = None) -> Listing:
        return self._projects.listing(deadline, ReadSoFar(progress))

    def plan(self, machine: MachineSpec) -> Sequence[PartSpec]:
        return launching.plan(machine)

    def make(
        self, kind: PartKind, machine: MachineSpec, *, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline
    ) -> str:
        return self._launcher.make(kind, machine, tags=tags, made=made, deadline=deadline)

    def find(
        self, kind: PartKind, *, lease: UUID, made: Mapping[PartKind, str], deadline: Deadline
    ) -> Sequence[RemotePart]:
        return self._projects.all(
            lambda session: inventory.find(session, kind, lease=lease, made=made, deadline=deadline), deadline
        )

    def look(self, kind: PartKind, remote_id: str, *, deadline: Deadline) -> RemotePart | None:
        return self._projects.first(lambda session: inventory.look(session, kind, remote_id, deadline), deadline)

    def delete(self, kind: PartKind, remote_id: str, *, deadline: Deadline) -> None:
        self._launcher.delete(kind, remote_id, deadline)

    def stop(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.change_power(self._session, remote_id, "os-stop", deadline)

    def start(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.start(self._session, remote_id, deadline)

    def shelve(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.change_power(self._session, remote_id, "shelve", deadline)

    def unshelve(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.change_power(self._session, remote_id, "unshelve", deadline)

    def attach(self, remote_id: str, volume: str, *, deadline: Deadline) -> None:
        volumes.attach(self._session, remote_id, volume, deadline)

    def detach(self, remote_id: str, volume: str, *, deadline: Deadline) -> None:
        volumes.detach(self._session, remote_id, volume, deadline)

    def suspend(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.change_power(self._session, remote_id, "suspend", deadline)

    def resume(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.change_power(self._session, remote_id, "resume", deadline)

    def resize(self, remote_id: str, instance_type: str, *, deadline: Deadline) -> None:
        actions.resize(self._session, remote_id, instance_type, deadline)

    def confirm_resize(self, remote_id: str, *, deadline: Deadline) -> bool:
        return actions.confirm_resize(self._session, remote_id, deadline)

    def revert_resize(self, remote_id: str, *, deadline: Deadline) -> None:
        actions.revert_resize(self._session, remote_id, deadline)

    def rebuild(self, remote_id: str, image: str, *, deadline: Deadline) -> None:
        actions.rebuild(self._session, remote_id, image, deadline)

    def usage(self, period: Period, *, deadline: Deadline) -> Sequence[RemoteUsage]:
        return self._projects.all(lambda session: usage.read_usage(session, period, deadline), deadline)

    def ended_at(self, remote_id: str, *, since: datetime, deadline: Deadline) -> datetime | None:
        return self._projects.first(
            lambda session: inventory.ended_at(session, remote_id, since=since, deadline=deadline), deadline
        )

    def changes(self, *, since: datetime, deadline: Deadline) -> Changes:
        return self._projects.changes(
            lambda session: inventory.changes(session, since=since, deadline=deadline), deadline
        )

    def close(self) -> None:
        """Close idle connections; for who drops the adapter."""
        self._projects.close()
