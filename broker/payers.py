"""Who pays for a found thing already: asked before it is adopted, so that nothing is charged twice.

The parts of leases say it, not the inventory, which is as old as the last listing; and those at all sites of the
provider, as one cloud may be two sites. Whoever asks must hold back others who adopt (`broker.adoption`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from broker.errors import Conflict
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import Desired, LaunchAttempt, Lease, Outcome, Part
from broker.models.people import Project
from broker.models.workloads import Order
from broker.remote import MachineState, PartKind, ThingKind
from broker.values import plain


@dataclass(frozen=True, slots=True)
class _Payer:
    """An order that pays for something; `site`: where it does. `is_over`: no longer, since a moment ago."""

    order: Order
    lease: Lease
    site: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class Payers:
    """Who pays for the things of one wish, and for the machines that they are attached to.

    `discarded`: remote ids of what Leeway is deleting as a leftover of its own.
    """

    found: Mapping[tuple[PartKind, str], _Payer]
    discarded: frozenset[str]

    def refuse_or_find(self, thing: Thing, project: Project) -> Order | None:
        """The order by which the project adopted it before; None: nobody pays for it.

        Raises:
            Conflict: somebody else does, or it goes.
        """
        payer = self.found.get((PartKind(thing.kind.value), thing.remote_id))
        if payer is not None:
            return _same_or_refuse(thing, payer, project)
        if thing.installation is not None:
            raise Conflict(
                f"{what_is(thing)} carries the tags of Leeway installation {thing.installation}",
                hint="Whoever runs that one charges it. If nobody does any more, take the tags away at the site.",
            )
        if thing.state is MachineState.DELETING or thing.remote_id in self.discarded:
            raise Conflict(f"{what_is(thing)} is being deleted", hint="Leave it out.")
        machine = self.found.get((PartKind.SERVER, thing.attached_to or ""))
        if machine is not None and thing.kind is ThingKind.VOLUME and _is_root_of(thing, machine.lease):
            raise Conflict(
                f"{what_is(thing)} is the disk of {machine.lease.spec['name']}, and charged with that machine",
                hint=f"Leave it out; `leeway show {machine.order.id}` has its costs.",
            )
        return None


def payers(session: Session, site: Site, things: Collection[Thing], *, now: datetime) -> Payers:
    """Ask for all things of a wish at once. Who stopped paying after `now` counts as one who still does."""
    ids = {thing.remote_id for thing in things}
    rows = session.execute(
        select(Part.kind, Part.remote_id, Part.gone_at, Lease, Order, Site.name)
        .join(Lease, Lease.id == Part.lease_id)
        .join(Order, Order.id == Lease.order_id)
        .join(Site, Site.id == Lease.site_id)
        .where(
            Part.remote_id.in_(ids | {thing.attached_to for thing in things if thing.attached_to is not None}),
            Site.provider_id == site.provider_id,
            or_(Part.gone_at.is_(None), Part.gone_at > now),
        )
        .order_by(Part.gone_at)  # what is not gone comes last, and counts
        .execution_options(populate_existing=True)
    )
    found = {
        (kind, remote_id): _Payer(order, lease, name, is_over=gone_at is not None)
        for kind, remote_id, gone_at, lease, order, name in rows
        if remote_id is not None
    }
    discarded = session.scalars(
        select(LaunchAttempt.remote_id).where(
            LaunchAttempt.remote_id.in_(ids), LaunchAttempt.outcome == Outcome.DISCARD
        )
    )
    return Payers(found, frozenset(remote_id for remote_id in discarded if remote_id is not None))


def _same_or_refuse(thing: Thing, payer: _Payer, project: Project) -> Order:
    lease, order = payer.lease, payer.order
    if lease.adopted_at is not None and (payer.is_over or lease.desired is Desired.GONE):
        why = f"{what_is(thing)} is charged to a project until its ending, asked for just now, is through"
        raise Conflict(f"{why} ({lease.project})", hint="Repeat it in a minute.")
    if lease.adopted_at is not None and order.project_id == project.id:
        return order
    raise Conflict(
        f"{what_is(thing)} is charged to a project already ({lease.project}, at {payer.site})",
        hint=f"`leeway show {order.id}`; end that with `leeway stop` before another project takes it.",
    )


def _is_root_of(thing: Thing, lease: Lease) -> bool:
    """A volume that the site made for a machine of ours to boot from; it has no tags, and no part stands for it."""
    size = lease.spec.get("boot_volume_gib")
    return lease.adopted_at is None and bool(size) and thing.size_gib == size


def what_is(thing: Thing) -> str:
    """The thing in a person's words."""
    size = f" of {plain(thing.size_gib)} GiB" if thing.size_gib is not None else ""
    word = "machine" if thing.kind is ThingKind.SERVER else thing.kind.value.replace("_", " ")
    return f"{word} {thing.name or thing.remote_id}{size}"
