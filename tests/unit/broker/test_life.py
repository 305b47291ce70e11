"""The life of a workload, end to end over a real database and a real (sandbox) cloud."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select

from accounting.ledger import verify
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from broker.models.holds import QuotaHold
from broker.models.leases import LeaseState, Outcome
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.remote import PartKind
from tests.world import World


def test_a_workload_is_quoted_ordered_started_metered_charged_and_stopped(world: World) -> None:
    order = world.order()
    (lease_id,) = world.leases(order)

    view = world.until_running(lease_id)

    assert [part.kind for part in view.lease.parts] == [PartKind.KEY_PAIR, PartKind.PORT, PartKind.SERVER]
    assert {attempt.outcome for attempt in view.lease.attempts} == {Outcome.CREATED}
    assert view.lease.addresses
    assert len(world.cloud.cloud.servers) == 1

    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    view = world.until_gone(lease_id)
    world.settle(lease_id)

    assert view.lease.state is LeaseState.GONE
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.OVER
        charges = session.scalars(select(Charge)).all()
        assert sum(charge.billed_cost for charge in charges) > 0
        assert {charge.sku_id for charge in charges} == {"a1.small"}
        (hold,) = session.scalars(select(MoneyHold)).all()
        assert hold.released_at is not None
        assert all(row.released_at is not None for row in session.scalars(select(QuotaHold)))
        assert verify(session) == []
        assert hold.amount > Decimal("0.08")
