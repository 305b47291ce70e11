"""What a project is told of its money."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from accounting.settle import settle
from accounting.spending import spend
from broker.errors import InvalidInput, NotFound
from broker.models.leases import LeaseState
from broker.values import Amount, new_id
from tests.unit.accounting.world import HOUR, T0, YEAR, World, eur

pytestmark = pytest.mark.postgres


def test_a_new_project_has_spent_nothing(world: World) -> None:
    found = spend(world.session, world.project.id, now=T0)
    assert (found.project, found.at, found.grants, found.leases, found.overdraft) == (
        world.project.name,
        T0,
        (),
        (),
        (),
    )


def test_spent_held_accrued_and_free(world: World) -> None:
    world.card()
    world.grant("10", name="ERC")
    order = world.order("4")
    lease = world.lease(order)
    world.see(lease, T0, LeaseState.RUNNING)
    world.see(lease, T0 + 10 * HOUR, LeaseState.STOPPED)
    settle(world.session, lease.id, now=T0 + 10 * HOUR)
    found = spend(world.session, world.project.id, now=T0 + 15 * HOUR)
    (grant,) = found.grants
    assert (grant.name, grant.period) == ("ERC", YEAR)
    assert (grant.ceiling, grant.spent, grant.held, grant.free) == (eur(10), eur("0.6"), eur("3.4"), eur(6))
    assert grant.accrued == eur("0.15")
    (line,) = found.leases
    assert (line.lease_id, line.workload, line.machine) == (lease.id, "era5", "era5-1")
    assert (line.site, line.state) == (world.site.name, LeaseState.STOPPED)
    assert (line.charged, line.accrued) == ((eur("0.6"),), (eur("0.15"),))
    world.see(lease, T0 + 20 * HOUR, LeaseState.GONE)
    settle(world.session, lease.id, now=T0 + 20 * HOUR)
    found = spend(world.session, world.project.id, now=T0 + 30 * HOUR)
    assert [grant.accrued for grant in found.grants] == [eur(0)]
    assert [(line.charged, line.accrued) for line in found.leases] == [((eur("0.9"),), ())]


def test_what_is_seen_but_not_settled_yet_is_accrued(world: World) -> None:
    world.card()
    world.card({"m1.small": "0.12"}, since=T0 + 5 * HOUR)
    world.grant("10")
    lease = world.lease(world.order("4"))
    world.see(lease, T0, LeaseState.RUNNING)
    before = spend(world.session, world.project.id, now=T0)
    assert before.leases[0].accrued == ()
    found = spend(world.session, world.project.id, now=T0 + 10 * HOUR)
    assert found.leases[0].accrued == (eur("0.9"),), "at each moment's own price"
    assert found.grants[0].accrued == eur("0.9")


def test_accrued_falls_on_grants_as_the_charge_will(world: World) -> None:
    world.card()
    world.grant("1")
    world.grant("5")
    world.grant(Amount.of(9, "SU@vsc"))
    order = world.order("3")
    for member in (1, 2):
        world.see(world.lease(order, member=member), T0, LeaseState.RUNNING)
    world.order("1")
    found = spend(world.session, world.project.id, now=T0 + 10 * HOUR)
    assert [grant.accrued for grant in found.grants] == [eur(1), eur("0.2"), Amount.of(0, "SU@vsc")]
    assert [line.machine for line in found.leases] == ["era5-1", "era5-2"]


def test_an_unknown_price_is_not_shown_as_nothing(world: World) -> None:
    world.card({"m1.other": "1"})
    world.grant("1")
    world.grant("5")
    world.grant("5")
    known = world.order("0.5")
    world.lease(known)
    lease = world.lease(world.order("3"))
    world.see(lease, T0, LeaseState.RUNNING)
    world.order("1")
    found = spend(world.session, world.project.id, now=T0 + HOUR)
    assert [line.accrued for line in found.leases] == [(), None]
    assert [grant.accrued for grant in found.grants] == [None, None, eur(0)]


def test_overdraft_is_shown_per_currency(world: World) -> None:
    world.card()
    world.grant("10")
    lease = world.lease(world.order("1"))
    world.card({"m1.small": "0.12"}, since=T0 + 20 * HOUR, currency="USD")
    world.see(lease, T0, LeaseState.RUNNING)
    world.see(lease, T0 + 30 * HOUR, LeaseState.GONE)
    settle(world.session, lease.id, now=T0 + 30 * HOUR)
    found = spend(world.session, world.project.id, now=T0 + 30 * HOUR)
    assert found.overdraft == (eur("0.2"), Amount.of("1.2", "USD"))
    assert found.leases[0].charged == (eur("1.2"), Amount.of("1.2", "USD"))
    assert found.grants[0].spent == eur(1)


def test_what_accrues_beyond_the_hold_is_on_no_grant(world: World) -> None:
    world.card()
    world.grant("10")
    lease = world.lease(world.order("1"))
    world.see(lease, T0, LeaseState.RUNNING)
    found = spend(world.session, world.project.id, now=T0 + 100 * HOUR)
    assert (found.grants[0].accrued, found.leases[0].accrued) == (eur(1), (eur(6),))
    assert Decimal(6) == 100 * Decimal("0.06")


def test_unknown_projects_and_naive_times(world: World) -> None:
    with pytest.raises(NotFound):
        spend(world.session, new_id(), now=datetime(2026, 12, 1, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="now"):
        spend(world.session, world.project.id, now=datetime(2026, 12, 1))  # noqa: DTZ001 - the point
