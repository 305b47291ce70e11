"""What the core needs from the others, as Protocols: passed as arguments, never looked up.

`adapters/` implements `Adapters` and `CloudAdapter`, `policies/` implements `Placer`, `accounting/` implements `Ledger`
and `Facts`, `web/` implements `Vault` and `Jobs`. The values that cross are in `broker.remote` and `broker.placement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable
from uuid import UUID

from sqlalchemy.orm import Session

from broker.placement import Assumptions, Catalogue, PlacementFacts, Ranking, Workload
from broker.remote import (
    Capability,
    Deadline,
    Diagnosis,
    Listing,
    MachineSpec,
    PartKind,
    PartSpec,
    RemoteImage,
    RemoteMachine,
    RemoteNetwork,
    RemoteOffer,
    RemotePart,
    RemoteQuota,
    RemoteUsage,
    Secret,
    SiteAddress,
    Tags,
)
from broker.values import Amount, Period


class CloudAdapter(Protocol):
    """One site. Calls block, keep the deadline, and raise only `SiteError` or its children.

    `SiteRefused` and its children promise that nothing was made. `SiteUnknown` promises nothing.
    """

    @property
    def capabilities(self) -> Capability:
        """The optional Protocols it also implements."""
        ...

    @property
    def settle_time(self) -> timedelta:
        """The longest time between a request's acceptance and its thing showing in a search."""
        ...

    def scope(self, *, deadline: Deadline) -> str:
        """The credential scope, as `listing` names it: a 404 of another scope proves nothing about this one."""
        ...

    def check(self, *, deadline: Deadline) -> Sequence[Diagnosis]:
        """Try the credential step by step; a refusal is a diagnosis here, not an error."""
        ...

    def offers(self, *, deadline: Deadline) -> Sequence[RemoteOffer]:
        """Every instance type the credential may use."""
        ...

    def images(self, *, deadline: Deadline) -> Sequence[RemoteImage]:
        """Every image that can be started."""
        ...

    def networks(self, *, deadline: Deadline) -> Sequence[RemoteNetwork]:
        """Every network the credential may use."""
        ...

    def quotas(self, *, deadline: Deadline) -> Sequence[RemoteQuota]:
        """Limits and use of the credential's project."""
        ...

    def listing(self, *, deadline: Deadline, progress: Callable[[int], None] | None = None) -> Listing:
        """All machines and parts of the scope, every page; raises where any page is missing, cut or foreign.

        `progress` is told how many things were read so far, ours or not, after every page and from any thread; what it
        raises ends the listing. Where a list had to be read anew the number falls.
        """
        ...

    def plan(self, machine: MachineSpec) -> Sequence[PartSpec]:
        """The parts that this machine needs, in the order in which they are made; exactly one is the SERVER."""
        ...

    def make(
        self, kind: PartKind, machine: MachineSpec, *, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline
    ) -> str:
        """Send the one request that makes a part, and return its remote id. Not sent after the deadline."""
        ...

    def find(
        self, kind: PartKind, *, lease: UUID, made: Mapping[PartKind, str], deadline: Deadline
    ) -> Sequence[RemotePart]:
        """Every part of the kind that carries the lease's name or tag; complete, or an error."""
        ...

    def look(self, kind: PartKind, remote_id: str, *, deadline: Deadline) -> RemotePart | None:
        """One part by id; None only where the site itself says 404. A SERVER comes back as `RemoteMachine`."""
        ...

    def delete(self, kind: PartKind, remote_id: str, *, deadline: Deadline) -> None:
        """Ask for deletion; gone already is fine. Gone is what `look` says afterwards, not that this returned."""
        ...


@runtime_checkable
class Powers(Protocol):
    """Capability.POWER: stop and start a machine that keeps its place. Already so is fine."""

    def stop(self, remote_id: str, *, deadline: Deadline) -> None: ...

    def start(self, remote_id: str, *, deadline: Deadline) -> None: ...


@runtime_checkable
class Shelves(Protocol):
    """Capability.SHELVE: give the machine's place back and take it again. Already so is fine."""

    def shelve(self, remote_id: str, *, deadline: Deadline) -> None: ...

    def unshelve(self, remote_id: str, *, deadline: Deadline) -> None: ...


@runtime_checkable
class Endings(Protocol):
    """Capability.ENDINGS: the site remembers when a machine that is gone was deleted."""

    def ended_at(self, remote_id: str, *, since: datetime, deadline: Deadline) -> datetime | None:
        """When it ended, by the site's own word; None where the site no longer says. `since`: when it was last seen."""
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """Which machines of one credential scope changed since a time; all of them, or it is an error.

    A machine that went without a deletion, or that the site forgot since, is in none: a full listing finds that out.

    Attributes:
        machines: as they are now; some may have changed a little earlier, because the site's clock may differ.
        ended: remote id -> when the site deleted it, None where it does not say.
    """

    scope: str
    machines: tuple[RemoteMachine, ...]
    ended: Mapping[str, datetime | None]


@runtime_checkable
class Increments(Protocol):
    """The site can say what changed since a time, for less than a listing costs."""

    def changes(self, *, since: datetime, deadline: Deadline) -> Changes:
        """Every machine made, changed or deleted at `since` or later, all pages; raises as `listing`."""
        ...


@runtime_checkable
class Suspends(Protocol):
    """Capability.SUSPEND: write a machine's memory to disk and go on from there. Already so is fine."""

    def suspend(self, remote_id: str, *, deadline: Deadline) -> None: ...

    def resume(self, remote_id: str, *, deadline: Deadline) -> None: ...


@runtime_checkable
class Resizes(Protocol):
    """Capability.RESIZE: another instance type for a machine, which the site may want to be confirmed."""

    def resize(self, remote_id: str, instance_type: str, *, deadline: Deadline) -> None:
        """Begin; done already, or under way, is fine. The machine is looked at until `confirm_resize` says True."""
        ...

    def confirm_resize(self, remote_id: str, *, deadline: Deadline) -> bool:
        """Confirm what waits for it; True where nothing is left to do, False where it still moves: ask again."""
        ...

    def revert_resize(self, remote_id: str, *, deadline: Deadline) -> None:
        """Back to the former type, while that is not confirmed; `SiteConflict` after."""
        ...


@runtime_checkable
class Rebuilds(Protocol):
    """Capability.REBUILD: a new disk from an image, for a machine that keeps its id, its place and its addresses."""

    def rebuild(self, remote_id: str, image: str, *, deadline: Deadline) -> None: ...


@runtime_checkable
class Volumes(Protocol):
    """Capability.VOLUMES: disks that come to a machine, and go from it, while it is there. Already so is fine."""

    def attach(self, remote_id: str, volume: str, *, deadline: Deadline) -> None: ...

    def detach(self, remote_id: str, volume: str, *, deadline: Deadline) -> None: ...


@runtime_checkable
class Usages(Protocol):
    """Capability.USAGE: the site keeps its own account of machines, also of those that are gone."""

    def usage(self, period: Period, *, deadline: Deadline) -> Sequence[RemoteUsage]:
        """Every machine that existed in the period, all pages; raises as `listing`."""
        ...


class Adapters(Protocol):
    """Opens sites. The same site and secret give the same adapter; another secret never shares its session."""

    def open(self, site: SiteAddress, secret: Secret) -> CloudAdapter:
        """Raises `InvalidInput` for an unknown adapter kind or a credential that lacks a field."""
        ...


class Placer(Protocol):
    """Decides. Pure: the same arguments give the same ranking, bit for bit."""

    def rank(
        self,
        workload: Workload,
        catalogue: Catalogue,
        facts: PlacementFacts,
        assumptions: Assumptions,
        *,
        now: datetime,
    ) -> Ranking:
        """Price every offer that fits, and say why the others do not."""
        ...


class Facts(Protocol):
    """What accounting tells placement."""

    def for_project(self, session: Session, project_id: UUID, *, now: datetime) -> PlacementFacts:
        """Frozen facts; raises `NotFound` for an unknown project."""
        ...


@dataclass(frozen=True, slots=True)
class SoFar:
    """What an order's money went into: charged to its open hold, and used but not charged yet.

    `seen`: per lease, the moment up to which that counts, which is when its machine was last seen.
    """

    amounts: Sequence[Amount]
    seen: Mapping[UUID, datetime]


class Ledger(Protocol):
    """Sets money aside. Everything happens in the caller's transaction."""

    def lock(self, session: Session, order_id: UUID) -> None:
        """Lock what pays for the order, for whoever must lock the order and its leases before the hold is changed."""
        ...

    def so_far(self, session: Session, order_id: UUID) -> SoFar:
        """What the order used so far; raises `PriceUnknown` where a price of that is not known."""
        ...

    def hold(
        self, session: Session, order_id: UUID, amounts: Sequence[Amount], until: datetime, *, now: datetime
    ) -> None:
        """Set amounts aside on the project's grants, or raise `GrantExhausted` with what is free and hold nothing."""
        ...

    def hold_each(
        self, session: Session, amounts: Mapping[UUID, Sequence[Amount]], until: datetime, *, now: datetime
    ) -> None:
        """The same for several orders of one project at once, all or none."""
        ...

    def extend(
        self, session: Session, order_id: UUID, amounts: Sequence[Amount], until: datetime, *, now: datetime
    ) -> None:
        """Change the hold to `amounts` in all (more or less) until `until`; raises as `hold`, and changes nothing."""
        ...

    def release(self, session: Session, order_id: UUID, *, now: datetime) -> None:
        """Give back what is left of the hold. Twice is fine."""
        ...


class Vault(Protocol):
    """Site credentials, encrypted at rest."""

    def secret(self, session: Session, site_id: UUID, *, person_id: UUID | None = None) -> Secret:
        """The person's own credential for the site if there is one, else the site's; raises `NotFound`."""
        ...

    def store(self, session: Session, site_id: UUID, secret: Secret, *, person_id: UUID | None = None) -> None:
        """Encrypt and keep, replacing the former one."""
        ...


class Jobs(Protocol):
    """Wakes workers. A wake-up may come twice or not at all: the rows are the truth, and the sweep repeats it."""

    def defer(self, session: Session, task: str, key: str) -> None:
        """Wake a worker for `task` on `key` when the caller's transaction commits; one waiting wake-up per pair."""
        ...
