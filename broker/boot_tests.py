"""Boot tests: does a machine come up at a site, and how soon?

A boot test is an order like any other: the cheapest machine that the site sells, for half an hour, paid by a project
that the operator names. So it is started exactly once, tagged, held for, metered and deleted like all machines, and
ends by itself where nobody stops it. As soon as its machine runs, or does not, that is written down as a contact of the
kind BOOT (`broker.contacts`), and the order is stopped. Whatever the machine fails for counts as a failure, also where
the site says no: a quote has just said that it fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from broker.contacts import record
from broker.database import database_now
from broker.errors import Conflict, InvalidInput, LeewayError, NoOffer
from broker.models.catalogue import CatalogueVersion, SiteImage
from broker.models.federation import Site
from broker.models.health import BootPlan, BootTest, ProbeKind
from broker.models.leases import LaunchAttempt, Lease, Outcome
from broker.models.people import Project
from broker.models.workloads import Order, OrderState, Quote
from broker.orders import GOING_ON, Choice, place_order, stop_order
from broker.ports import Jobs, Ledger
from broker.projects import project_named
from broker.quotes import Quoting, make_quote
from broker.restored import acts
from broker.units import show_duration

# A machine that does not run by then has failed. Long enough for bare metal.
LIMIT: Final = timedelta(minutes=20)
# Longer than the limit, and short enough to cost little where Leeway itself is down.
LENGTH: Final = timedelta(minutes=30)
LEAST_INTERVAL: Final = timedelta(hours=1)
MOST_INTERVAL: Final = timedelta(days=31)
NAME: Final = "boot-test"
FAILED: Final = "boot_failed"
SLOW: Final = "boot_slow"
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Ordering:
    """What an order is placed with."""

    quoting: Quoting
    ledger: Ledger
    jobs: Jobs


@dataclass(frozen=True, slots=True)
class Wanted:
    """A boot test to order: who pays, and which image it starts from (None: the smallest that the site has)."""

    project: str
    image: str | None = None


@dataclass(frozen=True, slots=True)
class BootView:
    """A boot test. `outcome`: under way, ok, failed, or stopped (by a person, before anything could be said)."""

    order_id: UUID
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class PlanView:
    """Boot tests at intervals. `trouble`: why the last one could not be ordered."""

    project: str
    image: str | None
    every_seconds: int
    next_at: datetime
    trouble: str | None


def start_boot_test(
    session: Session, site: Site, wanted: Wanted, ordering: Ordering, *, actor: str, now: datetime
) -> BootTest:
    """Order a machine at a site, to see whether it comes up.

    Raises:
        Conflict: Leeway only observes the site, a boot test is under way there, or as `place_order` does.
        NotFound: no such project.
        NoOffer: the site cannot take a machine now, or it has no image; says why.
        QuotaExhausted, GrantExhausted: as `place_order` does.
    """
    if site.observe_only:
        raise Conflict(
            f"Leeway only observes {site.name}, and starts nothing there", hint="Add the site again with --broker."
        )
    # Two requests at once: the second waits for the first, then finds its test.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"boot test:{site.id}"))))
    running = select(BootTest.order_id).where(BootTest.site_id == site.id, BootTest.ended_at.is_(None))
    if (before := session.scalars(running).one_or_none()) is not None:
        raise Conflict(f"a boot test is under way at {site.name}", hint=f"See `leeway show {before}`.")
    quote = make_quote(session, _document(session, site, wanted), ordering.quoting, now=now)
    if not quote.offers:
        raise _refusal(quote, site)
    order = place_order(session, Choice(quote.id), ledger=ordering.ledger, jobs=ordering.jobs, actor=actor, now=now)
    test = BootTest(site_id=site.id, order_id=order.id, began_at=now, give_up_at=now + LIMIT)
    session.add(test)
    session.flush()
    return test


def _document(session: Session, site: Site, wanted: Wanted) -> dict[str, object]:
    """The least that can be asked for. The cheapest that fits is the first offer."""
    return {
        "kind": "machine",
        "name": NAME,
        "project": wanted.project,
        "resources": {"cores": 1, "memory": "1 MiB"},
        "image": wanted.image or _smallest_image(session, site),
        "duration": show_duration(LENGTH),
        "requirements": {"sites": [site.name]},
    }


def _smallest_image(session: Session, site: Site) -> str:
    """By what it needs; of images alike, one that has a name across sites: others may be somebody's snapshots."""
    found = session.execute(
        select(SiteImage.logical, SiteImage.name)
        .join(CatalogueVersion, CatalogueVersion.id == SiteImage.catalogue_version_id)
        .where(CatalogueVersion.site_id == site.id, CatalogueVersion.superseded_at.is_(None))
        .order_by(SiteImage.logical.is_(None), SiteImage.min_disk_gib, SiteImage.min_memory_mib, SiteImage.name)
        .limit(1)
    ).one_or_none()
    if found is None:
        raise NoOffer(f"no image is known at {site.name}", hint="Is it listed? See `leeway site show`.")
    return found.logical or str(found.name)


def _refusal(quote: Quote, site: Site) -> NoOffer:
    """Why the site takes no machine, and the way out, as the quote says them."""
    mine = next((verdict for verdict in quote.verdicts if verdict["site"] == site.name), None)
    why, hint = "it is switched off", None
    if mine is not None:
        why = str(mine["summary"]).removeprefix("nothing fits: ")
        hint = next((str(reason["hint"]) for reason in mine["reasons"] if reason["hint"]), None)
    return NoOffer(f"no machine can be started at {site.name} now: {why}", hint=hint)


# --- what came of it -----------------------------------------------------------------------------------------------


def end_boot_tests(session: Session, *, jobs: Jobs) -> int:
    """Judge every boot test of which something can be said, and stop its machine; returns how many were.

    None while Leeway only observes: the rows may be of a backup, and whatever became of the machine later.
    """
    if not session.scalars(select(acts())).one():
        return 0
    under_way = session.scalars(
        select(BootTest)
        .where(BootTest.ended_at.is_(None))
        .order_by(BootTest.order_id)
        .with_for_update(skip_locked=True, key_share=True)
    )
    return sum(_end(session, test, jobs=jobs) for test in under_way.all())


def _end(session: Session, test: BootTest, *, jobs: Jobs) -> bool:
    now = database_now(session)
    order = session.get_one(Order, test.order_id, populate_existing=True)
    lease = session.scalars(  # of several it is the first: a boot that failed is not made good by the next offer
        select(Lease).where(Lease.order_id == order.id).order_by(Lease.id).limit(1)
    ).one()
    if lease.started_at is not None:
        # By the site's word, whose clock may be behind ours.
        test.took_ms = max(round((lease.started_at - lease.made_at) / timedelta(milliseconds=1)), 0)
    elif lease.failure is not None or order.state is OrderState.RETURNED:
        test.error_code, test.error = _error_code(session, lease), lease.failure or order.reason
    elif order.state in GOING_ON and now >= test.give_up_at and not lease.must_find:
        test.error_code = SLOW
        test.error = f"no machine ran within {show_duration(LIMIT)}" + (f": {lease.trouble}" if lease.trouble else "")
    elif order.state in GOING_ON:
        return False
    test.ended_at = now
    if test.took_ms is not None or test.error_code is not None:
        seconds = (test.took_ms or 0) / 1000 if test.error_code is None else (now - test.began_at).total_seconds()
        record(session, test.site_id, ProbeKind.BOOT, seconds=seconds, error=test.error_code)
    stop_order(session, order.id, jobs=jobs, actor="leeway", reason=_reason(test))
    return True


def _error_code(session: Session, lease: Lease) -> str:
    """What the site refused the last request with; where it took them all, the machine itself failed."""
    refused = (
        select(LaunchAttempt.error_code)
        .where(LaunchAttempt.lease_id == lease.id, LaunchAttempt.outcome == Outcome.REFUSED)
        .order_by(LaunchAttempt.started_at.desc())
        .limit(1)
    )
    return session.scalars(refused).one_or_none() or FAILED


def _reason(test: BootTest) -> str:
    if test.took_ms is None:
        return f"the boot test failed: {test.error}"
    return f"the boot test is done: its machine ran after {test.took_ms / 1000:.0f} s"


def boot_tests(session: Session, site_id: UUID) -> list[BootView]:
    """The newest boot tests of a site, the newest first."""
    rows = session.scalars(
        select(BootTest).where(BootTest.site_id == site_id).order_by(BootTest.began_at.desc()).limit(_SHOWN)
    )
    return [
        BootView(
            order_id=test.order_id,
            began_at=test.began_at,
            ended_at=test.ended_at,
            outcome=_outcome(test),
            seconds=None if test.took_ms is None else test.took_ms / 1000,
            error=test.error,
        )
        for test in rows
    ]


def _outcome(test: BootTest) -> str:
    if test.ended_at is None:
        return "under way"
    if test.error_code is not None:
        return "failed"
    return "stopped" if test.took_ms is None else "ok"


# --- at intervals --------------------------------------------------------------------------------------------------


def plan_boot_tests(session: Session, site: Site, wanted: Wanted, *, every: timedelta, now: datetime) -> None:
    """Test a site at intervals from now on, the first time at once.

    Raises:
        InvalidInput: the interval is too short or too long.
        NotFound: no such project.
        Conflict: Leeway only observes the site.
    """
    if not LEAST_INTERVAL <= every <= MOST_INTERVAL:
        reason = f"{show_duration(every)} is not between {show_duration(LEAST_INTERVAL)} and {MOST_INTERVAL.days} days"
        raise InvalidInput("every", reason, hint="Write it like 1 day.")
    if site.observe_only:
        raise Conflict(
            f"Leeway only observes {site.name}, and starts nothing there", hint="Add the site again with --broker."
        )
    project = project_named(session, wanted.project)
    plan = session.get(BootPlan, site.id, with_for_update=True)
    if plan is None:
        plan = BootPlan(site_id=site.id)
        session.add(plan)
    plan.project_id, plan.image, plan.every = project.id, wanted.image, every
    plan.next_at, plan.trouble = now, None
    session.flush()


def forget_plan(session: Session, site: Site) -> None:
    """Test a site at intervals no more."""
    session.execute(delete(BootPlan).where(BootPlan.site_id == site.id))


def boot_plan(session: Session, site_id: UUID) -> PlanView | None:
    """The plan of a site."""
    found = session.execute(
        select(BootPlan, Project.name).join(Project).where(BootPlan.site_id == site_id)
    ).one_or_none()
    if found is None:
        return None
    plan, project = found
    return PlanView(project, plan.image, int(plan.every.total_seconds()), plan.next_at, plan.trouble)


def start_planned(session: Session, ordering: Ordering, *, now: datetime) -> bool:
    """Order the boot test that is due; one at a time, as each takes the locks of an order. True where one was due.

    None is while Leeway only observes, and starts nothing.
    """
    if not session.scalars(select(acts())).one():
        return False
    found = session.execute(
        select(BootPlan, Project.name, Site)
        .join(Project, Project.id == BootPlan.project_id)
        .join(Site, Site.id == BootPlan.site_id)
        .where(BootPlan.next_at <= now, Site.is_enabled)
        .order_by(BootPlan.next_at)
        .limit(1)
        .with_for_update(of=BootPlan, skip_locked=True)
    ).one_or_none()
    if found is None:
        return False
    plan, project, site = found
    trouble = None
    try:
        with session.begin_nested():
            session.connection()  # asked for here: it sets the savepoint
            start_boot_test(session, site, Wanted(project, plan.image), ordering, actor="leeway", now=now)
    except LeewayError as error:
        trouble = str(error)
    plan.trouble, plan.next_at = trouble, now + plan.every
    return True
