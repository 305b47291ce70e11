"""An end that was estimated, and what the site says later: the difference is posted, nothing else is altered."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from accounting.models.charges import Charge
from accounting.proof import prove
from accounting.settle import settle
from broker.models.leases import Lease, LeaseState
from broker.models.workloads import OrderState
from broker.remote import PartKind
from tests.unit.accounting.world import HOUR, LEDGER, T0, World, eur

pytestmark = pytest.mark.postgres

RUNNING, GONE = LeaseState.RUNNING, LeaseState.GONE
PRICE = Decimal("0.06")


def at(hours: float) -> datetime:
    """So many hours after the order."""
    return T0 + hours * HOUR


def vanished(world: World, *, hold: str = "10", seen_until: float = 10) -> Lease:
    """A machine that ran since the order and vanished; it is charged until it was last seen, and all is settled."""
    lease = world.lease(world.order(hold))
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(seen_until))
    world.see(lease, at(20), GONE, since=at(seen_until), is_estimated=True)
    assert settle(world.session, lease.id, now=at(20)).is_settled
    return lease


def word(world: World, lease: Lease, hours: float, *, seen: float = 30) -> None:
    """The site says when it ended, and accounting gets to know."""
    world.see(lease, at(seen), GONE, since=at(hours))
    settle(world.session, lease.id, now=at(seen))


def spent(world: World, lease: Lease) -> Decimal:
    """All that the lease was charged, corrections included."""
    return sum((charge.billed_cost for charge in world.charges(lease)), Decimal(0))


def test_it_ended_later_and_the_rest_is_charged_to_what_is_free(world: World) -> None:
    world.card()
    grant = world.grant("100")
    lease = vanished(world)
    assert world.of_grant(grant) == (10 * PRICE, 0)
    word(world, lease, 15)
    assert world.of_grant(grant) == (15 * PRICE, 0)
    first, second = world.charges(lease)
    assert (first.charge_period_end, first.x_estimated) == (at(10), True)
    assert (second.charge_period_start, second.charge_period_end) == (at(10), at(15))
    assert (second.x_estimated, second.charge_class, second.x_grant_id) == (False, None, grant.id)
    assert (world.owed, prove(world.session)) == (15 * PRICE, [])


def test_it_ended_earlier_and_the_money_goes_back(world: World) -> None:
    world.card()
    grant = world.grant("100")
    lease = vanished(world)
    before = [(row.id, row.billed_cost) for row in world.charges(lease)]
    word(world, lease, 4)
    assert (world.of_grant(grant), world.owed) == ((4 * PRICE, 0), 4 * PRICE)
    charged, correction = world.charges(lease)
    assert [(charged.id, charged.billed_cost)] == before, "what is posted stays"
    assert (correction.charge_class, correction.x_correction, correction.x_estimated) == ("Correction", 1, False)
    assert (correction.charge_period_start, correction.charge_period_end) == (at(4), at(10))
    assert (correction.pricing_quantity, correction.consumed_quantity) == (-6, -6)
    assert correction.billed_cost == correction.list_cost == -6 * PRICE
    assert (correction.x_grant_id, correction.sku_price_id) == (grant.id, charged.sku_price_id)
    assert prove(world.session) == []


def test_twice_is_once_and_a_third_word_counts_from_what_is_posted(world: World) -> None:
    world.card()
    world.grant("100")
    lease = vanished(world)
    word(world, lease, 4)
    entries = world.entries()
    settle(world.session, lease.id, now=at(31))
    assert (world.entries(), spent(world, lease)) == (entries, 4 * PRICE)
    word(world, lease, 7, seen=32)
    assert spent(world, lease) == 7 * PRICE
    word(world, lease, 12, seen=33)
    assert spent(world, lease) == 12 * PRICE
    assert [row.counted_until for row in world.segments(lease)] == [None, None]
    word(world, lease, 0, seen=34)
    assert (spent(world, lease), world.owed) == (0, 0)
    assert [row.counted_until for row in world.segments(lease)] == [at(0), at(10)]
    assert prove(world.session) == []


def test_a_word_before_anything_was_charged_is_simply_the_end(world: World) -> None:
    world.card()
    world.grant("100")
    lease = world.lease(world.order("10"))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(20), GONE, since=at(0), is_estimated=True)
    word(world, lease, 9)
    (charge,) = world.charges(lease)
    assert (charge.charge_period_end, charge.x_estimated, charge.billed_cost) == (at(9), False, 9 * PRICE)


def test_the_site_cannot_say_that_it_ended_after_it_was_seen_gone(world: World) -> None:
    world.card()
    world.grant("100")
    lease = vanished(world)
    word(world, lease, 25)
    assert spent(world, lease) == 20 * PRICE


def test_over_the_grant_is_overdraft_until_it_is_taken_back(world: World) -> None:
    world.card()
    grant = world.grant("0.7")
    lease = vanished(world, hold="0.65")
    word(world, lease, 15)
    assert (world.of_grant(grant), world.overdraft) == ((Decimal("0.7"), 0), Decimal("0.2"))
    assert [finding.resolved_at for finding in world.findings("overdraft", lease.id)] == [None]
    word(world, lease, 14, seen=31)
    assert (world.of_grant(grant), world.overdraft) == ((Decimal("0.7"), 0), Decimal("0.14"))
    word(world, lease, 11, seen=32)
    assert (world.of_grant(grant), world.overdraft) == ((Decimal("0.66"), 0), 0)
    (finding,) = world.findings("overdraft", lease.id)
    assert finding.resolved_at is not None
    assert prove(world.session) == []


def test_what_two_grants_paid_goes_back_to_the_last_one_first(world: World) -> None:
    world.card()
    first, second = world.grant("0.4"), world.grant("5")
    lease = vanished(world, hold="1")
    rows = {row.x_grant_id: row for row in world.charges(lease)}
    assert (rows[first.id].billed_cost, rows[second.id].billed_cost) == (Decimal("0.4"), Decimal("0.2"))
    assert sum(row.pricing_quantity for row in rows.values()) == 10
    word(world, lease, 4)
    assert (world.of_grant(first)[0], world.of_grant(second)[0]) == (Decimal("0.24"), 0)
    assert sum(row.pricing_quantity for row in world.charges(lease)) == 4
    assert prove(world.session) == []


def test_a_running_order_keeps_its_hold_and_the_money_is_free(world: World) -> None:
    world.card()
    grant = world.grant("100")
    order = world.order("10")
    other = world.lease(order, member=2)
    world.see(other, at(0), RUNNING)
    lease = world.lease(order)
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(20), GONE, since=at(10), is_estimated=True)
    settle(world.session, lease.id, now=at(20))
    held = world.of_grant(grant)[1]
    word(world, lease, 4)
    assert world.of_grant(grant) == (4 * PRICE, held)
    assert order.state is OrderState.PLACED


def test_months_tiers_minimum_and_address_are_taken_back_as_they_were_charged(world: World) -> None:
    card = world.card({"public-address": "0.01"})
    world.price(card, "m1.small", "0.10")
    world.price(card, "m1.small", "0.05", above="5")
    world.grant("100")
    lease = world.lease(world.order("10"))
    world.part(lease, PartKind.ADDRESS, made_at=at(0))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(20), GONE, since=at(8), is_estimated=True)
    settle(world.session, lease.id, now=at(20))
    assert spent(world, lease) == 5 * Decimal("0.10") + 3 * Decimal("0.05") + 8 * Decimal("0.01")
    word(world, lease, 6)
    assert spent(world, lease) == 5 * Decimal("0.10") + Decimal("0.05") + 6 * Decimal("0.01")
    word(world, lease, 2, seen=31)
    assert spent(world, lease) == 2 * Decimal("0.11")
    assert prove(world.session) == []


def test_a_minimum_stays_what_it_is(world: World) -> None:
    card = world.card({"m1.big": "1"})
    world.price(card, "m1.small", "0.06", minimum=4 * 3600)
    world.grant("100")
    lease = vanished(world)
    word(world, lease, 1)
    assert spent(world, lease) == 4 * PRICE
    word(world, lease, 0, seen=31)
    assert spent(world, lease) == 0


def test_an_end_in_a_former_month_takes_back_what_came_after(world: World) -> None:
    world.card()
    grant = world.grant("100")
    december = datetime(2026, 12, 1, tzinfo=UTC)
    lease = world.lease(world.order("50"))
    world.see(lease, at(0), RUNNING)
    world.still(lease, december + 5 * HOUR)
    world.see(lease, december + 9 * HOUR, GONE, since=december + 5 * HOUR, is_estimated=True)
    settle(world.session, lease.id, now=december + 9 * HOUR)
    world.see(lease, december + 10 * HOUR, GONE, since=december - 2 * HOUR)
    settle(world.session, lease.id, now=december + 10 * HOUR)
    hours = (december - T0) // HOUR - 2
    assert world.of_grant(grant) == (hours * PRICE, 0)
    back = [row for row in world.charges(lease) if row.x_correction]
    assert [row.billing_period_start.month for row in back] == [11, 12]
    assert prove(world.session) == []


def test_later_use_without_a_price_waits_for_one(world: World) -> None:
    card = world.card()
    world.grant("100")
    lease = vanished(world)
    card.valid_to = at(12)
    world.session.flush()
    word(world, lease, 15)
    assert (lease.settled_at, lease.next_look_at) == (None, at(30))
    assert [finding.resolved_at for finding in world.findings("price_unknown", lease.id)] == [None]
    card.valid_to = None
    world.session.flush()
    settle(world.session, lease.id, now=at(32))
    assert (spent(world, lease), lease.settled_at) == (15 * PRICE, at(32))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    words=st.lists(st.integers(0, 72_000_000), min_size=1, max_size=4),  # milliseconds after the order
    grants=st.lists(st.integers(1, 900_000_000), min_size=1, max_size=3),  # 10^-8 EUR
    money=st.tuples(st.integers(1, 999_999_999), st.integers(0, 100)),  # 10^-9 EUR an hour; held, in percent
)
def test_whatever_the_words_the_books_agree_and_the_last_one_counts(
    session: Session, words: list[int], grants: list[int], money: tuple[int, int]
) -> None:
    with session.begin_nested() as example:
        world = World(session)
        price, hold = money
        unit_price = Decimal(price) / 10**9
        world.card({"m1.small": str(unit_price)})
        made = [world.grant(eur(Decimal(amount) / 10**8)) for amount in grants]
        free = sum(Decimal(amount) for amount in grants) / 10**8
        order = world.order()
        LEDGER.hold(session, order.id, [eur(free * hold / 100)], at(48), now=T0)
        lease = world.lease(order)
        world.see(lease, at(0), RUNNING)
        world.see(lease, at(20), GONE, since=at(10), is_estimated=True)
        settle(session, lease.id, now=at(20))
        for number, milliseconds in enumerate(words):
            word(world, lease, milliseconds / 3_600_000, seen=30 + number)
            settle(session, lease.id, now=at(30 + number))
        cost, hours = spent(world, lease), Decimal(words[-1]) / 3_600_000
        assert abs(cost - hours * unit_price) < Decimal("0.00000001")
        assert world.owed == cost == sum(world.of_grant(grant)[0] for grant in made) + world.overdraft
        for grant in made:
            assert paid_by(session, lease, grant.id) == world.of_grant(grant)[0]
        assert paid_by(session, lease, None) == world.overdraft
        assert prove(session) == []
        example.rollback()
    session.expunge_all()


def paid_by(session: Session, lease: Lease, grant_id: object) -> Decimal:
    """What the rows of the lease say that a grant paid."""
    rows = session.scalars(select(Charge).where(Charge.lease_id == lease.id))
    return sum((row.billed_cost for row in rows if row.x_grant_id == grant_id), Decimal(0))
