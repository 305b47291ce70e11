"""A site's clock that is wrong takes nothing away from what was seen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from accounting.models.charges import Charge
from adapters.sandbox.state import utc_now
from broker.models.leases import Lease
from broker.remote import Deadline, PartKind
from broker.sites import site_named
from tests.world import World


@pytest.mark.parametrize("ahead", [timedelta(minutes=-4), timedelta(minutes=10)], ids=["behind", "ahead"])
def test_a_machine_is_charged_until_it_was_seen_last_at_least(world: World, ahead: timedelta) -> None:
    with world.sessions() as session:
        site_id = site_named(session, "aurora").id
    world.cloud.cloud.clock = lambda: utc_now() + ahead
    (lease_id,) = world.leases(world.order())
    view = world.until_running(lease_id)
    server = view.part(PartKind.SERVER).remote_id
    assert server is not None
    world.observe(site_id)
    seen_at = world.view(lease_id).lease.seen_at
    world.tools.open_site(site_id).delete(PartKind.SERVER, server, deadline=Deadline.after(10))
    world.observe(site_id)
    settle = world.tools.timing.settle
    assert settle is not None
    missing_since = world.view(lease_id).lease.missing_since
    assert missing_since is not None
    world.wake(lease_id, missing_since=Lease.missing_since - settle)
    world.observe(site_id)
    lease = world.until_gone(lease_id).lease
    with world.sessions() as session:
        (charge,) = session.scalars(select(Charge).where(Charge.lease_id == lease_id))
    assert seen_at is not None
    assert lease.gone_at is not None
    assert seen_at <= charge.charge_period_end <= lease.gone_at
