"""What a listing shows of a lease that no row knows, and what that says of it (`broker.rebuilt` makes rows of it)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from broker.models.leases import Desired
from broker.remote import (
    MachineState,
    PartKind,
    RemoteMachine,
    RemotePart,
    RemoteSnapshot,
    RemoteThing,
    SnapshotState,
    Tags,
)
from broker.workloads import MAX_KEEP

_UUID7: Final = 7
_SECOND: Final = timedelta(seconds=1)
_POWER: Final = {MachineState.STOPPED: Desired.STOPPED, MachineState.SHELVED: Desired.SHELVED}


@dataclass(frozen=True, slots=True)
class Find:
    """What a listing shows of one lease that no row knows.

    Attributes:
        seen_at: the listing's start.
        disks: the volumes that are in its machine, or carry its tags.
        unread: why the listing shows no volumes at all; None: it shows them.
    """

    site_id: UUID
    scope: str
    seen_at: datetime
    machine: RemoteMachine
    tags: Tags
    things: tuple[RemotePart, ...]
    disks: tuple[RemoteThing, ...]
    unread: str | None

    @property
    def has_address(self) -> bool:
        """Whether a public address is among the parts."""
        return any(thing.kind is PartKind.ADDRESS for thing in self.things)

    @property
    def boot_disks(self) -> list[RemoteThing]:
        """What it may boot from: nobody's volumes that were made while it was. Sites round their times to seconds."""
        born, ran = self.machine.created_at, self.machine.launched_at or self.seen_at
        if born is None:
            return []
        return [
            disk
            for disk in self.disks
            if disk.tags is None and disk.created_at is not None and born - _SECOND <= disk.created_at <= ran + _SECOND
        ]

    @property
    def ordered_at(self) -> datetime:
        """When the lease was made: its id says so."""
        return min(moment_of(self.tags.lease) or self.machine.created_at or self.seen_at, self.seen_at)

    @property
    def duration(self) -> timedelta:
        """How long it was to run: the tags hold the end as it was before the machine ran."""
        return max(self.tags.until - self.ordered_at, _SECOND)

    @property
    def snapshot(self) -> RemoteSnapshot | None:
        """The snapshot of its disk: a whole one, if there is one."""
        found = [thing for thing in self.things if isinstance(thing, RemoteSnapshot)]
        return min(found, key=lambda one: one.state is not SnapshotState.READY, default=None)

    @property
    def saved_at(self) -> datetime:
        """When its snapshot was asked for."""
        tags = self.tags if self.snapshot is None or self.snapshot.tags is None else self.snapshot.tags
        return min(moment_of(tags.attempt) or self.seen_at, self.seen_at)

    @property
    def keep(self) -> timedelta | None:
        """For how long a snapshot is to be kept, in whole seconds; None where none was taken yet."""
        if self.snapshot is None or self.snapshot.tags is None:
            return None
        whole = -(-(self.snapshot.tags.until - self.saved_at) // _SECOND) * _SECOND
        return min(max(whole, _SECOND), MAX_KEEP)

    @property
    def desired(self) -> Desired:
        """As it is: whoever powered it off meant to. What is being deleted, or never came up, is to go."""
        state = self.machine.state
        if state is MachineState.DELETING or (state is MachineState.ERROR and self.machine.launched_at is None):
            return Desired.GONE if self.keep is None else Desired.SNAPSHOT
        return _POWER.get(state, Desired.RUNNING)


def moment_of(identifier: UUID) -> datetime | None:
    """When a UUIDv7 was made; None for another kind."""
    if identifier.version != _UUID7:
        return None
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, tz=UTC)
