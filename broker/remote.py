"""What crosses the line between the core and a cloud: frozen values, no SDK types."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Flag, StrEnum, auto
from typing import Self
from uuid import UUID

from broker.errors import SiteUnknown


class Fence(StrEnum):
    """What keeps a second try from making a second thing (DESIGN: the launch contract).

    NAME   the name is unique at the site: the second request is refused.
    TOKEN  the request carries an idempotency token: the second answers with the first's thing.
    PART   the thing takes an exclusive part that was made before it: a second taker is refused.
    NONE   nothing does: an unknown outcome is never retried by itself.
    """

    NAME = "name"
    TOKEN = "token"  # noqa: S105 - the name of a fence, not a secret
    PART = "part"
    NONE = "none"


class PartKind(StrEnum):
    """A kind of remote object that a lease is made of, in the order in which those of a machine are made."""

    KEY_PAIR = "key_pair"
    PORT = "port"
    VOLUME = "volume"
    SERVER = "server"
    ADDRESS = "address"
    SNAPSHOT = "snapshot"
    VOLUME_SNAPSHOT = "volume_snapshot"  # only ever adopted


class MachineState(StrEnum):
    """What a machine is doing, in the words that Leeway's meters understand.

    STOPPED keeps its place on the host, SHELVED gives it back: what each costs is the rate card's matter. UNKNOWN is
    a status that the adapter cannot read; it never means gone.
    """

    BUILDING = "building"
    RUNNING = "running"
    STOPPED = "stopped"
    SHELVED = "shelved"
    ERROR = "error"
    DELETING = "deleting"
    UNKNOWN = "unknown"


class SnapshotState(StrEnum):
    """Whether a machine can be started from a snapshot: not yet, yes, or never."""

    SAVING = "saving"
    READY = "ready"
    FAILED = "failed"


class Capability(Flag):
    """Optional abilities of an adapter: the Protocols of `broker.ports`, and parts of kind SNAPSHOT.

    VOLUMES: parts of kind VOLUME and machines that boot from a volume too, besides the Protocol.
    """

    NONE = 0
    POWER = auto()
    SHELVE = auto()
    ENDINGS = auto()
    SNAPSHOT = auto()
    CHANGES = auto()
    SUSPEND = auto()
    RESIZE = auto()
    REBUILD = auto()
    VOLUMES = auto()
    USAGE = auto()


@dataclass(frozen=True, slots=True)
class Deadline:
    """The monotonic instant after which a call must not go on, nor send its request."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """`seconds` from now, by this process's monotonic clock."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left; negative when over."""
        return self.at - time.monotonic()

    def check(self, doing: str) -> None:
        """Raise `SiteUnknown` when the time is over, so that nothing is sent late."""
        if self.remaining <= 0:
            raise SiteUnknown(f"{doing}: the deadline passed before the site answered")


@dataclass(frozen=True, slots=True)
class Tags:
    """What every remote object of ours carries (`leeway:installation` and so on, spelt as the cloud allows)."""

    installation: UUID
    lease: UUID
    attempt: UUID
    project: str
    until: datetime


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine as the site is asked for it. Ids are the site's own; sizes were checked against the offer.

    Attributes:
        boot_volume_gib: the root disk is a volume of this size, made and deleted with the machine; 0: it is the
            instance type's own.
        volume_gib: a second disk, a part of kind VOLUME; 0: there is none.
    """

    name: str
    instance_type: str
    image: str
    disk_gib: int = 0
    public_address: bool = False
    ssh_key: str | None = None
    user_data: str | None = None
    boot_volume_gib: int = 0
    volume_gib: int = 0


@dataclass(frozen=True, slots=True)
class PartSpec:
    """One part that a machine needs, and how the site keeps it from being made twice.

    `is_harmless`: a second one does not run, so an unknown outcome may be tried again after the settle time, and the
    extra is discarded when a listing shows it (a volume costs until then).
    """

    kind: PartKind
    fence: Fence
    is_harmless: bool


@dataclass(frozen=True, slots=True)
class RemotePart:
    """A remote object as a look or a listing saw it. `tags` is None for what is not Leeway's (any installation's)."""

    kind: PartKind
    remote_id: str
    name: str
    tags: Tags | None


@dataclass(frozen=True, slots=True)
class RemoteMachine(RemotePart):
    """A machine as a look or a listing saw it; times are the site's own words, None where it has none.

    `owner` and `project` are the site's ids of who made it and of where it is counted.
    """

    state: MachineState
    raw_status: str
    instance_type: str | None
    created_at: datetime | None
    launched_at: datetime | None
    addresses: tuple[str, ...] = ()
    fault: str | None = None
    owner: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteSnapshot(RemotePart):
    """What was on a machine's disk at one moment, as a look or a listing saw it; `size_gib` None: not said (yet)."""

    state: SnapshotState
    raw_status: str
    size_gib: Decimal | None = None


class ThingKind(StrEnum):
    """What may exist at a site, and cost, whoever made it."""

    SERVER = "server"
    VOLUME = "volume"
    ADDRESS = "address"
    SNAPSHOT = "snapshot"
    VOLUME_SNAPSHOT = "volume_snapshot"


@dataclass(frozen=True, slots=True)
class RemoteThing:
    """Something at a site that is not a machine, whoever made it.

    Attributes:
        owner: the site's id of the user who made it, None where it does not say.
        project: the site's id of the project that it counts in, None where it does not say.
        attached_to: remote id of the machine (of an address: the port or machine) that has it; None: nothing has.
        size_gib: what it is billed by, None where it has no size or none is said.
        tags: None for what is not Leeway's, any installation's.
    """

    kind: ThingKind
    remote_id: str
    name: str
    raw_status: str
    owner: str | None = None
    attached_to: str | None = None
    size_gib: Decimal | None = None
    created_at: datetime | None = None
    tags: Tags | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteUsage:
    """What a site itself counted of one machine in a period.

    Attributes:
        hours: that it existed in the period, by the site's word; running or not.
        started_at: when it was made.
        ended_at: when it was deleted, None while it is there.
    """

    remote_id: str
    name: str
    instance_type: str
    raw_status: str
    cores: int
    memory_mib: int
    disk_gib: int
    hours: Decimal
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything of one credential scope, all pages. A listing that is not complete is an error, never a value.

    `parts` are those that carry the name or the tags of a Leeway; `things` are everybody's, save the machines. Of the
    kinds of things in `unread` it says nothing, parts included, and why: no machine need wait for their service.
    `projects` are the site's ids of those that were listed: of things in others it says nothing either.
    """

    scope: str
    machines: tuple[RemoteMachine, ...]
    parts: tuple[RemotePart, ...]
    things: tuple[RemoteThing, ...] = ()
    unread: Mapping[ThingKind, str] = field(default_factory=dict)
    projects: frozenset[str] = frozenset()

    def speaks_of(self, project: str | None) -> bool:
        """Whether a thing of this project would be in it, if it were there. None: the site does not say of which."""
        return project is None or not self.projects or project in self.projects


@dataclass(frozen=True, slots=True)
class RemoteOffer:
    """An instance type as the site describes it. `gpu_model` and `arch` are None where the site does not say."""

    remote_id: str
    name: str
    cores: int
    memory_mib: int
    disk_gib: int
    gpus: int = 0
    gpu_model: str | None = None
    arch: str | None = None
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image; `logical` is its name across sites (`ubuntu-24.04`, from os_distro and os_version), None if unclear."""

    remote_id: str
    name: str
    logical: str | None
    min_disk_gib: int = 0
    min_memory_mib: int = 0


@dataclass(frozen=True, slots=True)
class RemoteNetwork:
    """A network that machines can be put on, or (external) that public addresses come from."""

    remote_id: str
    name: str
    is_external: bool


@dataclass(frozen=True, slots=True)
class RemoteQuota:
    """One limit of the credential's project. `limit` None is unlimited. Resources: instances, cores, memory_mib, ..."""

    resource: str
    limit: Decimal | None
    used: Decimal


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One step of a site check: what was tried, whether it went well, what to do if not."""

    step: str
    ok: bool
    detail: str
    hint: str | None = None


class Secret:
    """Credential fields that never show themselves in a log or a repr."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Keep a copy."""
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> str:
        """One field; KeyError when the credential has none of that name."""
        return self._fields[name]

    def get(self, name: str) -> str | None:
        """One field, or None."""
        return self._fields.get(name)

    def reveal(self) -> dict[str, str]:
        """All fields, for the vault alone."""
        return dict(self._fields)

    def __repr__(self) -> str:
        """Names only."""
        return f"Secret({', '.join(sorted(self._fields))})"


@dataclass(frozen=True, slots=True)
class SiteAddress:
    """Where a site is: what an adapter needs to open it. `observe_only`: nothing is to be changed there."""

    site_id: UUID
    name: str
    adapter: str
    endpoint: str
    region: str | None
    installation: UUID
    settings: Mapping[str, str] = field(default_factory=dict)
    observe_only: bool = False
